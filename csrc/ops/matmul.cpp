// matmul: C = A B with leading dimensions broadcast. dA = dC B^T, dB = A^T dC, summed over broadcast batches. With the
// option bf16 the products are half-width (kernels/gemm_bf16.h).
#include <string.h>

#include "../kernels/export.h"
#include "../kernels/gemm_bf16.h"
#include "../kernels/gemm_cost.h"

namespace pbp {
namespace {

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
  static constexpr int64_t kBlock = 24;     // rows of one task
  static constexpr int64_t kRunRows = 960;  // of one product: enough to pay for copying panels of B

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
      for (int64_t r = t.begin; r < t.end; r += kRunRows) body(0, r, min64(kRunRows, t.end - r));
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

constexpr OpEntry kOps[] = {pbp_op<Matmul>()};

}  // namespace
}  // namespace pbp

PBP_EXPORT(matmul, kOps)
