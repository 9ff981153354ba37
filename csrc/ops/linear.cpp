// Products: linear (x W^T + b, with a following elementwise function) and matmul.
//
//   linear   y = f(x W^T + b)      dz = dy f'(...)   dx = dz W   dW = dz^T x   db = sum of dz over rows
//   matmul   C = A B               dA = dC B^T     dB = A^T dC, summed over broadcast batches
//
// A weight (out, in) is stored [in][ld], so that the forward product reads it in place; a weight that is itself
// computed comes dense. Both are only strides to the product.
//
// With the option bf16 the products are half-width (kernels/gemm_bf16.h); all else, db included, is as before. What
// several tasks multiply by is packed in phases of its own.
#include <string.h>

#include "../kernels/export.h"
#include "../kernels/gemm_bf16.h"

namespace pbp {
namespace {

constexpr double kFlopsPerNs = 150;  // of one thread, single precision: for the cost model only
constexpr double kElementNs = 0.05;  // a value written, or read once more, in cache
constexpr double kRowNs = 10;

struct LinearPlan {
  int64_t rows, in, out;
  int64_t features;  // rows of the stored weight in one task of dW
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
    s.local(kBackward, gemm_local(p.out > p.rows ? p.out : p.rows));
    s.scratch(kBackward, p.rows * p.out * int64_t(sizeof(double)));  // dz, if a function is absorbed
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
    const Operand<T> w = weight(c.in[1], c.x(1), p.out).transposed();
    if (p.bf16 && t.phase == 0) return pack(p.in, t, w, p.out, c.scratch);
    const bool padded = w.col == 1 && w.row % kLanes == 0 && w.row >= p.out;
    // The function follows while a block is in cache. Where nobody will read z again, it is made in y's own place.
    T* const z = p.preactivation >= 0 && c.saved[p.preactivation].data ? c.kept(p.preactivation) : c.y();
    const int64_t block = row_block<T>(p.in + p.out);
    for (int64_t r = t.begin; r < t.end; r += block) {
      const int64_t rows = min64(block, t.end - r), at = r * p.out;
      product(p, c.scratch, t.local,
              Product<T>{rows,
                         p.out,
                         p.in,
                         {c.x(0) + r * p.in, p.in, 1},
                         w,
                         z + at,
                         p.out,
                         p.has_bias ? Out::kBias : Out::kStore,
                         p.has_bias ? c.x(2) : nullptr,
                         padded});
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

  // Rows whose operands share L2 with a panel of the weight, yet enough to pay for packing it: a multiple of most
  // tiles.
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

  template <class T>
  static void backward_rows(const Ctx<T>& c, const LinearPlan& p, const Task& t) {
    if (!p.absorbed && !c.dx(0)) return;
    const Operand<T> w = weight(c.in[1], c.x(1), p.out);
    const int64_t block = row_block<T>(p.in + p.out);
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
    const Operand<T> d{dz(c, p), p.out, 1};
    if (c.dx(1)) {
      const int64_t i = t.begin * p.features, end = min64(t.end * p.features, p.in);
      const Operand<T> x{c.x(0) + i, p.in, 1};
      const View& v = c.d_in[1];
      const Out out = c.add[1] ? Out::kAdd : Out::kStore;
      if (p.out == 1 || v.step(0) == 1)  // [in][ld]
        gemm(Product<T>{end - i, p.out, p.rows, x.transposed(), d, c.dx(1) + i * v.step(1), v.step(1), out}, t.local);
      else  // [out][in]
        gemm(Product<T>{p.out, end - i, p.rows, d.transposed(), x, c.dx(1) + i, v.step(0), out}, t.local);
    }
    backward_bias(c, p, t, d);
  }

  template <class T>
  static void backward_bias(const Ctx<T>& c, const LinearPlan& p, const Task& t, const Operand<T>& d) {
    if (p.has_bias && c.dx(2) && t.end == weight_tasks(p)) {
      const T one = 1;  // db = (1 ... 1) dz: a row of ones with strides 0
      gemm(Product<T>{1, p.out, p.rows, {&one, 0, 0}, d, c.dx(2), p.out, c.add[2] ? Out::kAdd : Out::kStore}, t.local);
    }
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

  template <class T>
  static void backward_bf16(const Ctx<T>& c, const LinearPlan& p, const Task& t) {
    const Packed at = packed(p);
    const Operand<T> d{dz(c, p), p.out, 1};
    if (t.phase == 0) {
      if (c.dx(0)) pack(p.out, t, weight(c.in[1], c.x(1), p.out), p.in, part(c, at.w));
      if (c.dx(1)) pack(p.rows, t, Operand<T>{c.x(0), p.in, 1}, p.in, part(c, at.x));
    } else if (t.phase == 1) {
      backward_rows(c, p, t);
    } else if (t.phase == 2) {
      if (c.dx(1)) pack(p.rows, t, d, p.out, part(c, at.dz));
    } else {
      if constexpr (sizeof(T) == sizeof(float))
        if (c.dx(1)) weight_bf16(c, p, t, part(c, at.x), part(c, at.dz));
      backward_bias(c, p, t, d);
    }
  }

  static void weight_bf16(const Ctx<float>& c, const LinearPlan& p, const Task& t, const void* x, const void* d) {
    const int64_t i = t.begin * p.features, end = min64(t.end * p.features, p.in);
    const View& v = c.d_in[1];
    const Out out = c.add[1] ? Out::kAdd : Out::kStore;
    if (p.out == 1 || v.step(0) == 1)  // [in][ld]
      gemm_both_packed(p.rows, x, p.in, i, end, d, p.out, 0, p.out, c.dx(1) + i * v.step(1), v.step(1), out);
    else  // [out][in]
      gemm_both_packed(p.rows, d, p.out, 0, p.out, x, p.in, i, end, c.dx(1) + i, v.step(0), out);
  }
};

// The batches of a product: C's leading dimensions, and for each operand which of them it lacks (broadcast).
struct MatmulPlan {
  int64_t m, n, k;
  int64_t batches[2];  // matrices of A, of B
  int64_t shared[2];   // how many matrices of C read each matrix of A, of B
  bool flat;           // one matrix, whose rows are cut without regard to C's leading dimensions
  bool transposed[2];  // A stored (k, m), B stored (n, k)
  bool bf16;
  int rank;
  int64_t dim[kMaxRank];
  bool lacks[2][kMaxRank];
};

struct Matmul : OpDefaults {
  static constexpr const char* name = "matmul";

  // a (..., m, k), b (..., k, n) -> (..., m, n), NumPy's rules; a flag swaps the last two dimensions of its operand.
  static bool infer(Infer& s) {
    if (!s.expect_inputs(2, 2) || !s.expect_float(0) || !s.expect_float(1)) return false;
    auto& p = s.plan<MatmulPlan>();
    p.transposed[0] = s.i("transpose_a", 0) != 0;
    p.transposed[1] = s.i("transpose_b", 0) != 0;
    const Shape &a = s.in(0), &b = s.in(1);
    for (int i = 0; i < 2; ++i)
      if (s.in(i).rank < 2) return s.fail("expects matrices, but %s has shape %s", s.who(i), s.text(s.in(i)));
    p.m = p.transposed[0] ? a[-1] : a[-2];
    p.k = p.transposed[0] ? a[-2] : a[-1];
    p.n = p.transposed[1] ? b[-2] : b[-1];
    const int64_t k = p.transposed[1] ? b[-1] : b[-2];
    if (p.k != k)
      return s.fail("expects equal inner dimensions, but %s %s gives %lld and %s %s gives %lld", s.who(0), s.text(a),
                    (long long)p.k, s.who(1), s.text(b), (long long)k);
    if (!broadcast(s, p)) return false;
    Shape y;
    for (int i = 0; i < p.rank; ++i) y.push(p.dim[i]);
    y.push(p.m);
    y.push(p.n);
    s.out(y);
    for (int i = 0; i < 2; ++i) {
      s.keep_in(i);
      s.accumulates(i);
    }
    // One B for all of A's matrices: a single product over all their rows.
    const bool flat = p.batches[1] == 1 && p.shared[0] == 1 && !p.transposed[0];
    if (flat) {
      p.m *= p.batches[0];
      p.batches[0] = p.shared[1] = 1;
      p.rank = 0;
    }
    // A phase whose tasks own rows of one matrix each, or plain rows where there is one matrix.
    const double flop = 2 / kFlopsPerNs;
    if (flat) {
      s.rows(kForward, p.m, kRowNs + flop * double(p.n) * double(p.k), 1);
      s.rows(kBackward, p.m, kRowNs + flop * double(p.n) * double(p.k), 1);
    } else {
      const double cost = flop * double(p.n) * double(p.k) * double(p.m) * double(p.batches[0] * p.shared[0]);
      const int64_t tasks[2] = {p.batches[0] * p.shared[0] * blocks(p.m), p.batches[0] * blocks(stored_rows(p, 0))};
      s.phase(kForward, tasks[0], cost / double(tasks[0] + 1));
      s.phase(kBackward, tasks[1], cost / double(tasks[1] + 1));
    }
    const int64_t tasks = p.batches[1] * blocks(stored_rows(p, 1));
    s.phase(kBackward, tasks,
            flop * double(p.n) * double(p.k) * double(p.m) * double(p.batches[1] * p.shared[1]) / double(tasks + 1));
    p.flat = flat;
    p.bf16 = s.i("bf16", 0) != 0;
    if (p.bf16 && !s.bf16())
      return s.fail("half-width products need float32 and a CPU and instruction set with avx512_bf16");
    s.local(kForward, local_bytes(p, p.m, p.k));
    const int64_t left = local_bytes(p, stored_rows(p, 0), p.n), right = local_bytes(p, stored_rows(p, 1), p.m);
    s.local(kBackward, left > right ? left : right);
    return true;
  }

  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<MatmulPlan>();
    each_run(p.flat, t, p.m, [&](int64_t batch, int64_t r, int64_t rows) {
      const Operand<T> a = left(p, c.x(0), operand_batch(p, 0, batch));
      const Operand<T> b = right(p, c.x(1), operand_batch(p, 1, batch));
      product(p, Product<T>{rows, p.n, p.k, a.from(r, 0), b, c.y() + (batch * p.m + r) * p.n, p.n}, t.local);
    });
  }

  // Phase 0: dA. Phase 1: dB. Each by rows of the gradient as stored; contributions of a broadcast matrix in order.
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<MatmulPlan>();
    const int side = t.phase;
    if (!c.dx(side)) return;
    const int64_t stored = stored_rows(p, side), cols = stored_cols(p, side);
    each_run(p.flat && side == 0, t, stored, [&](int64_t own, int64_t r, int64_t rows) {
      T* const to = c.dx(side) + (own * stored + r) * cols;
      if (p.shared[side] == 0 && !c.add[side]) memset(to, 0, size_t(rows * cols) * sizeof(T));
      for (int64_t q = 0; q < p.shared[side]; ++q) {
        const int64_t batch = sharing_batch(p, side, own, q);
        const Operand<T> d{c.dy() + batch * p.m * p.n, p.n, 1};  // (m, n)
        const Operand<T> a = left(p, c.x(0), operand_batch(p, 0, batch));
        const Operand<T> b = right(p, c.x(1), operand_batch(p, 1, batch));
        // dA = dC B^T (m, k) or its transpose; dB = A^T dC (k, n) or its transpose.
        Operand<T> x = side == 0 ? d : a.transposed(), y = side == 0 ? b.transposed() : d;
        if (p.transposed[side]) {
          const Operand<T> swap = x.transposed();
          x = y.transposed();
          y = swap;
        }
        product(p,
                Product<T>{rows, cols, side == 0 ? p.n : p.m, x.from(r, 0), y, to, cols,
                           q || c.add[side] ? Out::kAdd : Out::kStore},
                t.local);
      }
    });
  }

 private:
  static constexpr int64_t kBlock = 24;  // rows of one task

  template <class T>
  static PBP_INLINE void product(const MatmulPlan& p, const Product<T>& product, void* local) {
    if constexpr (sizeof(T) == sizeof(float))
      if (p.bf16) return gemm_bf16(product, local);
    gemm(product, local);
  }
  static PBP_INLINE int64_t local_bytes(const MatmulPlan& p, int64_t rows, int64_t k) {
    return p.bf16 ? gemm_bf16_local(rows, k) : gemm_local(k);
  }

  static PBP_INLINE int64_t blocks(int64_t rows) { return ceil_div(rows, kBlock); }
  static PBP_INLINE int64_t stored_rows(const MatmulPlan& p, int side) {
    return side == 0 ? (p.transposed[0] ? p.k : p.m) : (p.transposed[1] ? p.n : p.k);
  }
  static PBP_INLINE int64_t stored_cols(const MatmulPlan& p, int side) {
    return side == 0 ? (p.transposed[0] ? p.m : p.k) : (p.transposed[1] ? p.k : p.n);
  }
  template <class T>
  static PBP_INLINE Operand<T> left(const MatmulPlan& p, const T* a, int64_t batch) {  // (m, k)
    const Operand<T> stored{a + batch * p.m * p.k, stored_cols(p, 0), 1};
    return p.transposed[0] ? stored.transposed() : stored;
  }
  template <class T>
  static PBP_INLINE Operand<T> right(const MatmulPlan& p, const T* b, int64_t batch) {  // (k, n)
    const Operand<T> stored{b + batch * p.k * p.n, stored_cols(p, 1), 1};
    return p.transposed[1] ? stored.transposed() : stored;
  }

  // Leading dimensions, aligned at their ends.
  static bool broadcast(Infer& s, MatmulPlan& p) {
    const Shape &a = s.in(0), &b = s.in(1);
    p.rank = (a.rank > b.rank ? a.rank : b.rank) - 2;
    for (int side = 0; side < 2; ++side) p.batches[side] = p.shared[side] = 1;
    for (int i = 0; i < p.rank; ++i) {
      const int from_end = p.rank - i + 2;
      const int64_t size[2] = {from_end <= a.rank ? a[-from_end] : 1, from_end <= b.rank ? b[-from_end] : 1};
      if (size[0] != size[1] && size[0] != 1 && size[1] != 1)
        return s.fail("leading dimensions do not broadcast: %s has %s and %s has %s", s.who(0), s.text(a), s.who(1),
                      s.text(b));
      p.dim[i] = size[0] == 1 ? size[1] : size[0];
      for (int side = 0; side < 2; ++side) {
        p.lacks[side][i] = size[side] == 1 && p.dim[i] != 1;
        (p.lacks[side][i] ? p.shared : p.batches)[side] *= p.dim[i];
      }
    }
    return true;
  }

  // The matrix of A or B that batch `c` of C reads.
  static PBP_INLINE int64_t operand_batch(const MatmulPlan& p, int side, int64_t c) {
    int64_t index = 0, stride = 1;
    for (int i = p.rank - 1; i >= 0; --i) {
      if (!p.lacks[side][i]) {
        index += c % p.dim[i] * stride;
        stride *= p.dim[i];
      }
      c /= p.dim[i];
    }
    return index;
  }
  // The q-th batch of C that reads matrix `own` of A or B.
  static PBP_INLINE int64_t sharing_batch(const MatmulPlan& p, int side, int64_t own, int64_t q) {
    int64_t index = 0, stride = 1;
    for (int i = p.rank - 1; i >= 0; --i) {
      int64_t& digits = p.lacks[side][i] ? q : own;
      index += digits % p.dim[i] * stride;
      digits /= p.dim[i];
      stride *= p.dim[i];
    }
    return index;
  }

  // The rows of a task run, cut at matrices: body(matrix, first row, rows). In a rows phase tasks are rows of the one
  // matrix.
  template <class Body>
  static PBP_INLINE void each_run(bool rows_phase, const Task& t, int64_t rows, Body body) {
    if (rows_phase) {
      for (int64_t r = t.begin; r < t.end; r += 8 * kBlock) body(0, r, min64(8 * kBlock, t.end - r));
      return;
    }
    const int64_t per = blocks(rows);
    for (int64_t i = t.begin; i < t.end;) {
      const int64_t matrix = i / per, end = min64(t.end, (matrix + 1) * per);
      const int64_t first = (i - matrix * per) * kBlock, last = min64((end - matrix * per) * kBlock, rows);
      body(matrix, first, last - first);
      i = end;
    }
  }
};

constexpr OpEntry kOps[] = {pbp_op<Linear>(), pbp_op<Matmul>()};

}  // namespace
}  // namespace pbp

PBP_EXPORT(linear, kOps)
