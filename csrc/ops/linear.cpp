// linear: a product with a weight, a bias, and a following elementwise function.
//
//   y = f(x W^T + b)      dz = dy f'(...)   dx = dz W   dW = dz^T x   db = sum of dz over rows
//
// A weight (out, in) is stored [in][ld], so that the forward product reads it in place; a weight that is itself
// computed comes dense. Both are only strides to the product.
//
// With the option bf16 the products are half-width (kernels/gemm_bf16.h); all else, db included, is as before. What
// several tasks multiply by is packed in phases of its own.
#include <string.h>

#include "../kernels/export.h"
#include "../kernels/gemm_bf16.h"
#include "../kernels/gemm_cost.h"
#include "../kernels/loops.h"

namespace pbp {
namespace {

constexpr int64_t kPartRows = 16;
constexpr int64_t kMostFeatures = 480;  // of a block of dW

struct LinearPlan {
  int64_t rows, in, out;
  int64_t features;  // rows of the stored weight in one task of dW
  int64_t blocks;    // of the forward product's sum, see gemm_depth
  bool has_bias, absorbed, needs_x;
  bool bf16;
  int preactivation;  // index of the saved buffer; -1: the function's backward reads y
  RowFn row;
  alignas(16) unsigned char row_plan[64];
};

struct Linear : OpDefaults {
  static constexpr const char* name = "linear";

  // x (..., in), weight (out, in), [bias (out)] -> (..., out)
  static bool infer(Infer& s) {
    if (!s.expect_inputs(2, 3)) return false;
    for (int i = 0; i < s.n_in(); ++i)
      if (!s.expect_float(i)) return false;
    const Shape &x = s.in(0), &w = s.in(1);
    if (w.rank != 2) return s.fail("weight expects shape (out, in), but %s has %s", s.who(1), s.text(w));
    if (x.rank < 1) return s.fail("input expects at least 1 dimension, but %s is a scalar", s.who(0));
    if (x[-1] != w[1])
      return s.fail("weight expects %lld input columns, but %s gives %lld", (long long)w[1], s.who(0),
                    (long long)x[-1]);
    if (s.n_in() == 3 && !(s.in(2).rank == 1 && s.in(2)[0] == w[0]))
      return s.fail("bias expects shape (%lld,), but %s has %s", (long long)w[0], s.who(2), s.text(s.in(2)));

    auto& p = s.plan<LinearPlan>();
    p.in = w[1];
    p.out = w[0];
    p.rows = 1;
    for (int i = 0; i + 1 < x.rank; ++i) p.rows *= x[i];
    p.features = p.in < 128 ? (p.in < 16 ? 1 : p.in / 8) : 16;
    p.has_bias = s.n_in() == 3;
    p.preactivation = -1;
    Shape y = x;
    y.dim[y.rank - 1] = p.out;
    s.out(y);

    s.keep_in(0);
    s.keep_in(1);
    for (int i = 0; i < s.n_in(); ++i) s.accumulates(i);
    for (int i = 1; i < s.n_in(); ++i) s.updates(i);
    s.any_layout(1);
    p.bf16 = s.i("bf16", 0) != 0;
    if (p.bf16) return infer_bf16(s, p);
    const double flops = 2 * double(p.in) * double(p.out);
    const double row = kRowNs + flops / kFlopsPerNs;
    const int64_t tasks = weight_tasks(p);
    s.rows(kForward, p.rows, row + kElementNs * double(p.out), 1);
    s.rows(kBackward, p.rows, row + kElementNs * double(p.in), 1);
    const double weight_ns = flops * double(p.rows) / kFlopsPerNs + kElementNs * double(p.in * p.out);
    s.phase(kBackward, tasks, weight_ns / double(tasks));
    s.local(kForward, gemm_local(p.in));
    const int64_t dx = gemm_local(p.out), dw = gemm_local(p.rows) + (p.rows <= kGemmDepth ? p.rows * kCopiedBytes : 0);
    s.local(kBackward, dx > dw ? dx : dw);
    s.scratch(kBackward, p.rows * p.out * int64_t(sizeof(double)));  // dz, if a function is absorbed
    // A core that writes a weight which another one has read waits for it line by line. With few rows the weight is
    // most of the traffic: where no dx asks for all of it, each thread multiplies with the features it updates.
    p.blocks = p.in ? ceil_div(p.in, gemm_depth(p.in)) : 1;
    if (p.blocks > 1 && p.rows <= p.in) {
      const int64_t parts = p.blocks * ceil_div(p.rows, kPartRows);
      s.instead(kForward, 0, 1);
      s.phase(kForward, parts, double(p.rows) * row / double(parts));
      s.rows(kForward, p.rows, kElementNs * double((p.blocks + 1) * p.out));
      s.scratch(kForward, p.blocks * p.rows * p.out * int64_t(sizeof(double)));
    }
    return true;
  }

  // Forward: pack W^T, then rows. Backward: pack W and x, then rows, pack dz, then dW.
  static bool infer_bf16(Infer& s, LinearPlan& p) {
    if (!s.bf16()) return s.fail("half-width products need float32 and a CPU and instruction set with avx512_bf16");
    const double in = double(p.in), out = double(p.out), rows = double(p.rows), weights = in * out;
    const double row_ns = kRowNs + weights / kFlopsPerNs, pack = kElementNs * 2;
    const int64_t tasks = weight_tasks(p), in_panels = ceil_div(p.in, kPackTask),
                  out_panels = ceil_div(p.out, kPackTask);
    s.phase(kForward, out_panels, pack * weights / double(out_panels + 1));
    s.rows(kForward, p.rows, row_ns + kElementNs * (in + out));
    s.phase(kBackward, in_panels, pack * (weights + rows * in) / double(in_panels + 1));
    s.rows(kBackward, p.rows, row_ns + kElementNs * (in + out));
    s.phase(kBackward, out_panels, pack * rows * out / double(out_panels + 1));
    s.phase(kBackward, tasks, (rows * weights / kFlopsPerNs + kElementNs * weights) / double(tasks));
    s.scratch(kForward, packed_bytes(p.in, p.out));
    s.scratch(kBackward, packed(p).end);
    s.local(kForward, gemm_packed_local(p.rows, p.in));
    const int64_t dx = gemm_packed_local(p.rows, p.out), db = gemm_local(p.rows);
    s.local(kBackward, dx > db ? dx : db);
    return true;
  }

  static bool absorb(Absorb& a) {
    const RowFn* row = a.row_fn();
    auto& p = a.plan<LinearPlan>();
    if (!row || p.absorbed || a.row_plan_size() > sizeof p.row_plan) return false;
    if (a.row_plan_size()) memcpy(p.row_plan, a.row_plan(), a.row_plan_size());
    p.row = *row;
    p.absorbed = true;
    p.needs_x = a.row_fn_needs_x();
    if (p.needs_x)
      p.preactivation = a.save_like_output();
    else
      a.keep_out();
    a.add_cost(0.3, 0.3);
    return true;
  }

  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<LinearPlan>();
    if (t.phase == kInstead) return forward_parts(c, p, t);
    if (t.phase == kInstead + 1) return join_parts(c, p, t);
    if (p.bf16 && t.phase == 0) return pack(p.in, t, weight(c.in[1], c.x(1), p.out).transposed(), p.out, c.scratch);
    // The function follows while a block is in cache.
    T* const z = preactivation(c, p);
    const int64_t block = row_block<T>(p.in + p.out);
    for (int64_t r = t.begin; r < t.end; r += block) {
      const int64_t rows = min64(block, t.end - r), at = r * p.out;
      forward_product(c, p, r, rows, 0, p.in, z + at, p.has_bias, t.local);
      if (p.absorbed) p.row.forward(p.row_plan, z + at, c.y() + at, rows * p.out);
    }
  }

  // Phase 0, by rows: dz and dx. Phase 1, by input features: dW, and db with the last of them.
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<LinearPlan>();
    if (p.bf16)
      backward_bf16(c, p, t);
    else if (t.phase == 0)
      backward_rows(c, p, t);
    else
      backward_weight(c, p, t);
  }

 private:
  // Element (o, i) of a weight's view. A stride that is never stepped is 1: it then counts as contiguous.
  template <class T>
  static PBP_INLINE Operand<T> weight(const View& v, const T* at, int64_t out) {
    return {at, out == 1 ? 1 : v.step(0), v.step(1)};
  }

  // Rows of so many columns that fill half of L2, yet enough to pay for packing the weight: a multiple of most tiles.
  template <class T>
  static PBP_INLINE int64_t row_block(int64_t columns) {
    const int64_t fit = (int64_t(512) << 10) / ((columns + 1) * int64_t(sizeof(T))) / 24 * 24;
    return fit < 144 ? 144 : fit;
  }

  static PBP_INLINE int64_t weight_tasks(const LinearPlan& p) { return p.in ? ceil_div(p.in, p.features) : 1; }

  // dy itself, or what phase 0 left of it.
  template <class T>
  static PBP_INLINE const T* dz(const Ctx<T>& c, const LinearPlan& p) {
    return p.absorbed ? static_cast<const T*>(c.scratch) : c.dy();
  }

  // Where nobody will read z again, it is made in y's own place.
  template <class T>
  static PBP_INLINE T* preactivation(const Ctx<T>& c, const LinearPlan& p) {
    return p.preactivation >= 0 && c.saved[p.preactivation].data ? c.kept(p.preactivation) : c.y();
  }

  // Rows [r, r + rows), summed over features [k, k + depth).
  template <class T>
  static PBP_INLINE void forward_product(const Ctx<T>& c, const LinearPlan& p, int64_t r, int64_t rows, int64_t k,
                                         int64_t depth, T* to, bool bias, void* local) {
    const Operand<T> w = weight(c.in[1], c.x(1), p.out).transposed();
    product(p, c.scratch, local,
            Product<T>{rows,
                       p.out,
                       depth,
                       {c.x(0) + r * p.in + k, p.in, 1},
                       w.from(k, 0),
                       to,
                       p.out,
                       bias ? Out::kBias : Out::kStore,
                       bias ? c.x(2) : nullptr,
                       w.col == 1 && w.row % kLanes == 0 && w.row >= p.out});
  }

  // Task: a block of the sum, and in it a few rows. The same blocks, added in the same order, as in one product.
  template <class T>
  static void forward_parts(const Ctx<T>& c, const LinearPlan& p, const Task& t) {
    const int64_t per = ceil_div(p.rows, kPartRows), depth = gemm_depth(p.in), most = row_block<T>(depth);
    for (int64_t i = t.begin; i < t.end;) {
      const int64_t b = i / per, r = (i - b * per) * kPartRows, k = b * depth;
      const int64_t last = min64((min64(t.end, (b + 1) * per) - b * per) * kPartRows, p.rows);
      const int64_t rows = min64(most / kPartRows * kPartRows, last - r);
      T* const part = static_cast<T*>(c.scratch) + (b * p.rows + r) * p.out;
      forward_product(c, p, r, rows, k, min64(depth, p.in - k), part, p.has_bias && b == 0, t.local);
      i += ceil_div(rows, kPartRows);
    }
  }
  template <class T>
  static void join_parts(const Ctx<T>& c, const LinearPlan& p, const Task& t) {
    const int64_t at = t.begin * p.out, n = (t.end - t.begin) * p.out;
    T* const z = preactivation(c, p) + at;
    const T* part = static_cast<const T*>(c.scratch) + at;
    auto add = [](Vec<T> a, Vec<T> b) __attribute__((always_inline)) { return a + b; };
    for (int64_t b = 1; b < p.blocks; ++b) map<T>(n, add, z, b == 1 ? part : z, part + b * p.rows * p.out);
    if (p.absorbed) p.row.forward(p.row_plan, z, c.y() + at, n);
  }

  template <class T>
  static void backward_rows(const Ctx<T>& c, const LinearPlan& p, const Task& t) {
    if (!p.absorbed && !c.dx(0)) return;
    const Operand<T> w = weight(c.in[1], c.x(1), p.out);
    const int64_t block = row_block<T>(gemm_depth(p.out));
    for (int64_t r = t.begin; r < t.end; r += block) {
      const int64_t rows = min64(block, t.end - r), at = r * p.out;
      if (p.absorbed)
        p.row.backward(p.row_plan, p.needs_x ? c.kept(p.preactivation) + at : nullptr, p.needs_x ? nullptr : c.y() + at,
                       c.dy() + at, static_cast<T*>(c.scratch) + at, rows * p.out);
      if (c.dx(0))
        product(p, part(c, packed(p).w), t.local,
                Product<T>{rows,
                           p.in,
                           p.out,
                           {dz(c, p) + at, p.out, 1},
                           w,
                           c.dx(0) + r * p.in,
                           p.in,
                           c.add[0] ? Out::kAdd : Out::kStore});
    }
  }

  template <class T>
  static void backward_weight(const Ctx<T>& c, const LinearPlan& p, const Task& t) {
    const int64_t i = t.begin * p.features, end = min64(t.end * p.features, p.in);
    if (c.dx(1)) weight_gradient(c, p, i, end - i, t.local);
    bias_gradient(c, p, t);
  }

  template <class T>
  static void bias_gradient(const Ctx<T>& c, const LinearPlan& p, const Task& t) {
    if (p.has_bias && c.dx(2) && t.end == weight_tasks(p)) {
      const T one = 1;  // db = (1 ... 1) dz: a row of ones with strides 0
      gemm(
          Product<T>{
              1, p.out, p.rows, {&one, 0, 0}, {dz(c, p), p.out, 1}, c.dx(2), p.out, c.add[2] ? Out::kAdd : Out::kStore},
          t.local);
      if (const Update* u = c.updates(2)) u->run(*u, c.dx(2), 0, 1, p.out, 0);
    }
  }

  // dW of features [i, i + n), block by block, each followed by its update if there is one: weights and states come
  // into cache while the product keeps the arithmetic units busy, and the gradient is read where it was made.
  template <class T>
  static void weight_gradient(const Ctx<T>& c, const LinearPlan& p, int64_t i, int64_t n, void* local) {
    const View& v = c.d_in[1];
    const Operand<T> x{c.x(0) + i, p.in, 1}, d{dz(c, p), p.out, 1};
    const Out out = c.add[1] ? Out::kAdd : Out::kStore;
    const Update* u = c.updates(1);
    if (p.out != 1 && v.step(0) != 1) {  // stored [out][in]
      weight_product(c, p, true, i, n, 0, p.out,
                     Product<T>{p.out, n, p.rows, d.transposed(), x, c.dx(1) + i, v.step(0), out}, local);
      if (u) u->run(*u, c.dx(1) + i, i, p.out, n, v.step(0));
      return;
    }
    const int64_t ld = v.step(1), size = int64_t(sizeof(T));  // stored [in][ld]
    const Cut cut = weight_blocks<T>(p, u, n);
    for (int64_t f = 0; f < n; f += cut.features) {
      const int64_t features = min64(cut.features, n - f);
      Operand<T> a = x.from(0, f).transposed();
      if (cut.copies) {
        T* const copy = reinterpret_cast<T*>(static_cast<char*>(local) + gemm_local(p.rows));
        const int64_t width = ceil_div(features, kLanes) * kLanes;
        pack_panel(p.rows, features, width, a.at, p.in, int64_t(1), copy);
        a = {copy, 1, width};
      }
      for (int64_t j = 0; j < p.out; j += cut.columns) {
        const int64_t columns = min64(cut.columns, p.out - j), at = (i + f) * ld + j;
        Stream wanted[5];
        int streams = 0;
        if (u) {
          for (; streams < u->spans; ++streams)
            wanted[streams] = {u->span[streams] + at * size, features, ld * size, columns * size};
          const int64_t next = j + columns < p.out ? j + columns : 0;
          if (columns < p.out)
            wanted[streams++] = {(const char*)d.from(0, next).at, p.rows, p.out * size,
                                 min64(cut.columns, p.out - next) * size};
        }
        weight_product(c, p, false, i + f, features, j, columns,
                       Product<T>{features, columns, p.rows, a, d.from(0, j), c.dx(1) + at, ld, out, nullptr, false,
                                  wanted, streams},
                       local);
        if (!u) continue;
        const bool whole = columns == p.out;  // padding is zero and stays so: one run
        u->run(*u, c.dx(1) + at, at, whole ? 1 : features, whole ? features * ld : columns, ld);
      }
    }
  }

  // Blocks of dW. With an update a block of gradient, weights and states shares L2 with what it is made of; and
  // features that lie pages apart in x are copied side by side once for all columns.
  struct Cut {
    int64_t features, columns;
    bool copies;
  };
  template <class T>
  static PBP_INLINE Cut weight_blocks(const LinearPlan& p, const Update* u, int64_t n) {
    if (!u) return {n, p.out, false};
    constexpr int64_t kColumns = 256, kElements = int64_t(64) << 8;
    const int64_t columns = p.out <= 2 * kColumns ? p.out : kColumns;
    const int64_t features = min64(kMostFeatures, ceil_div(kElements, (columns + 1) * 48) * 48);
    const bool copies = !p.bf16 && columns < p.out && features * int64_t(sizeof(T)) <= kCopiedBytes &&
                        p.rows <= kGemmDepth && p.in * int64_t(sizeof(T)) % 4096 == 0;
    return {features, columns, copies};
  }

  // Half-width.

  static constexpr int64_t kPackTask = 32;  // columns one task packs: a panel

  // Where backward's scratch holds dz and the packed operands, in bytes.
  struct Packed {
    int64_t w, x, dz, end;
  };
  static PBP_INLINE Packed packed(const LinearPlan& p) {
    Packed at;
    at.w = ceil_div(p.rows * p.out * int64_t(sizeof(float)), kAlign) * kAlign;
    at.x = at.w + packed_bytes(p.out, p.in);
    at.dz = at.x + packed_bytes(p.rows, p.in);
    at.end = at.dz + packed_bytes(p.rows, p.out);
    return at;
  }
  template <class T>
  static PBP_INLINE void* part(const Ctx<T>& c, int64_t offset) {
    return static_cast<char*>(c.scratch) + offset;
  }

  template <class T>
  static PBP_INLINE void pack(int64_t k, const Task& t, const Operand<T>& b, int64_t n, void* to) {
    if constexpr (sizeof(T) == sizeof(float)) pack_pairs(k, t.begin * kPackTask, t.end * kPackTask, b, n, to);
  }
  template <class T>
  static PBP_INLINE void product(const LinearPlan& p, const void* packed, void* local, const Product<T>& product) {
    if constexpr (sizeof(T) == sizeof(float))
      if (p.bf16) return gemm_packed(product, packed, local);
    gemm(product, local);
  }

  // dW of features [i, i + n) and outputs [j, j + m), or its transpose: from packed operands, or as the product says.
  template <class T>
  static PBP_INLINE void weight_product(const Ctx<T>& c, const LinearPlan& p, bool transposed, int64_t i, int64_t n,
                                        int64_t j, int64_t m, const Product<T>& product, void* local) {
    if constexpr (sizeof(T) == sizeof(float))
      if (p.bf16) {
        const Packed at = packed(p);
        const void *x = part(c, at.x), *d = part(c, at.dz);
        if (transposed)
          return gemm_both_packed(p.rows, d, p.out, j, j + m, x, p.in, i, i + n, product.c, product.ldc, product.out);
        return gemm_both_packed(p.rows, x, p.in, i, i + n, d, p.out, j, j + m, product.c, product.ldc, product.out);
      }
    gemm(product, local);
  }

  template <class T>
  static void backward_bf16(const Ctx<T>& c, const LinearPlan& p, const Task& t) {
    const Packed at = packed(p);
    if (t.phase == 0) {
      if (c.dx(0)) pack(p.out, t, weight(c.in[1], c.x(1), p.out), p.in, part(c, at.w));
      if (c.dx(1)) pack(p.rows, t, Operand<T>{c.x(0), p.in, 1}, p.in, part(c, at.x));
    } else if (t.phase == 1) {
      backward_rows(c, p, t);
    } else if (t.phase == 2) {
      if (c.dx(1)) pack(p.rows, t, Operand<T>{dz(c, p), p.out, 1}, p.out, part(c, at.dz));
    } else {
      backward_weight(c, p, t);
    }
  }
};

constexpr OpEntry kOps[] = {pbp_op<Linear>()};

}  // namespace
}  // namespace pbp

PBP_EXPORT(linear, kOps)
