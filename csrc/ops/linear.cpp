// Products: linear (x W^T + b, with a following elementwise function) and matmul.
//
//   linear   y = f(x W^T + b)      dz = dy f'(...)   dx = dz W   dW = dz^T x   db = sum of dz over rows
//   matmul   C = A B               dA = dC B^T     dB = A^T dC, summed over broadcast batches
//
// A weight (out, in) is stored [in][ld], so that the forward product reads it in place; a weight that is itself
// computed comes dense. Both are only strides to the product.
#include <string.h>

#include "../kernels/export.h"
#include "../kernels/gemm.h"
#include "../kernels/loops.h"

namespace pbp {
namespace {

constexpr double kFlopsPerNs = 150;  // of one thread, single precision: for the cost model only
constexpr double kElementNs = 0.05;  // a value written, or read once more, in cache
constexpr double kRowNs = 10;
constexpr int64_t kPartRows = 16;

struct LinearPlan {
  int64_t rows, in, out;
  int64_t features;  // rows of the stored weight in one task of dW
  int64_t blocks;    // of the forward product's sum, see gemm_depth
  bool has_bias, absorbed, needs_x;
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
    // A core that writes a weight which another one has read waits for it line by line. With few rows the weight is most
    // of the traffic: where no dx asks for all of it, each thread multiplies with the features it updates.
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
    if (t.phase == 0)
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
    gemm(Product<T>{rows,
                    p.out,
                    depth,
                    {c.x(0) + r * p.in + k, p.in, 1},
                    w.from(k, 0),
                    to,
                    p.out,
                    bias ? Out::kBias : Out::kStore,
                    bias ? c.x(2) : nullptr,
                    w.col == 1 && w.row % kLanes == 0 && w.row >= p.out},
         local);
  }

  // Task: a block of the sum, and in it a few rows. The same blocks, added in the same order, as in one product.
  template <class T>
  static void forward_parts(const Ctx<T>& c, const LinearPlan& p, const Task& t) {
    const int64_t per = ceil_div(p.rows, kPartRows), depth = gemm_depth(p.in), most = row_block<T>(depth + p.out);
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
    const int64_t block = row_block<T>(p.in + p.out);
    for (int64_t r = t.begin; r < t.end; r += block) {
      const int64_t rows = min64(block, t.end - r), at = r * p.out;
      if (p.absorbed)
        p.row.backward(p.row_plan, p.needs_x ? c.kept(p.preactivation) + at : nullptr, p.needs_x ? nullptr : c.y() + at,
                       c.dy() + at, static_cast<T*>(c.scratch) + at, rows * p.out);
      if (c.dx(0))
        gemm(Product<T>{rows,
                        p.in,
                        p.out,
                        {dz(c, p) + at, p.out, 1},
                        w,
                        c.dx(0) + r * p.in,
                        p.in,
                        c.add[0] ? Out::kAdd : Out::kStore},
             t.local);
    }
  }

  template <class T>
  static void backward_weight(const Ctx<T>& c, const LinearPlan& p, const Task& t) {
    const int64_t i = t.begin * p.features, end = min64(t.end * p.features, p.in);
    if (c.dx(1)) weight_gradient(c, p, i, end - i, t.local);
    if (p.has_bias && c.dx(2) && t.end == weight_tasks(p)) {
      const T one = 1;  // db = (1 ... 1) dz: a row of ones with strides 0
      gemm(Product<T>{1, p.out, p.rows, {&one, 0, 0}, {dz(c, p), p.out, 1}, c.dx(2), p.out,
                      c.add[2] ? Out::kAdd : Out::kStore},
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
      gemm(Product<T>{p.out, n, p.rows, d.transposed(), x, c.dx(1) + i, v.step(0), out}, local);
      if (u) u->run(*u, c.dx(1) + i, i, p.out, n, v.step(0));
      return;
    }
    const int64_t ld = v.step(1);  // stored [in][ld]
    constexpr int64_t kBlockColumns = 256, kBlockElements = int64_t(64) << 8;
    const int64_t width = !u || p.out <= 2 * kBlockColumns ? p.out : kBlockColumns;
    const int64_t block = u ? ceil_div(kBlockElements, (width + 1) * 48) * 48 : n;
    for (int64_t j = 0; j < p.out; j += width)
      for (int64_t f = 0; f < n; f += block) {
        const int64_t features = min64(block, n - f), some = min64(width, p.out - j);
        const int64_t at = (i + f) * ld + j;
        Stream wanted[4];
        const int spans = u ? u->spans : 0;
        for (int k = 0; k < spans; ++k)
          wanted[k] = {u->span[k] + at * int64_t(sizeof(T)), features, ld * int64_t(sizeof(T)),
                       some * int64_t(sizeof(T))};
        gemm(Product<T>{features, some, p.rows, x.from(0, f).transposed(), d.from(0, j), c.dx(1) + at, ld, out, nullptr,
                        false, wanted, spans},
             local);
        if (!u) continue;
        const bool whole = some == p.out;  // padding is zero and stays so: one run
        u->run(*u, c.dx(1) + at, at, whole ? 1 : features, whole ? features * ld : some, ld);
      }
  }
};

// The batches of a product: C's leading dimensions, and for each operand which of them it lacks (broadcast).
struct MatmulPlan {
  int64_t m, n, k;
  int64_t batches[2];  // matrices of A, of B
  int64_t shared[2];   // how many matrices of C read each matrix of A, of B
  bool flat;           // one matrix, whose rows are cut without regard to C's leading dimensions
  bool transposed[2];  // A stored (k, m), B stored (n, k)
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
    s.local(kForward, gemm_local(p.k));
    s.local(kBackward, gemm_local(p.m > p.n ? p.m : p.n));
    return true;
  }

  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<MatmulPlan>();
    each_run(p.flat, t, p.m, [&](int64_t batch, int64_t r, int64_t rows) {
      const Operand<T> a = left(p, c.x(0), operand_batch(p, 0, batch));
      const Operand<T> b = right(p, c.x(1), operand_batch(p, 1, batch));
      gemm(Product<T>{rows, p.n, p.k, a.from(r, 0), b, c.y() + (batch * p.m + r) * p.n, p.n}, t.local);
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
        gemm(Product<T>{rows, cols, side == 0 ? p.n : p.m, x.from(r, 0), y, to, cols,
                        q || c.add[side] ? Out::kAdd : Out::kStore},
             t.local);
      }
    });
  }

 private:
  static constexpr int64_t kBlock = 24;  // rows of one task

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
