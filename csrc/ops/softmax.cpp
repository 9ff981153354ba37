// softmax and log_softmax over any dimension; the largest value is subtracted first, NaN propagates, and a row of
// nothing but -inf gives NaN, as in PyTorch.
#include <math.h>

#include "../kernels/export.h"
#include "../kernels/math.h"
#include "../kernels/reduce.h"

namespace pbp {
namespace {

struct SoftmaxPlan {
  int64_t per_row;  // rows of `depth` in one index of dimension 0
  int64_t depth;    // length of the softmax
  int64_t inner;    // elements behind it: distance between its neighbours
  bool rows;
};

constexpr int64_t kColumnsPerTask = 64;

// Calls row(offset) for each contiguous softmax of the task, or columns(offset, lanes) for up to 16 neighbouring ones.
template <class Row, class Columns>
PBP_INLINE void each_softmax(const SoftmaxPlan& p, const Task& t, Row row, Columns columns) {
  if (p.inner == 1) {
    const int64_t begin = p.rows ? t.begin * p.per_row : 0, end = p.rows ? t.end * p.per_row : 1;
    for (int64_t i = begin; i < end; ++i) row(i * p.depth);
    return;
  }
  const int64_t begin = p.rows ? 0 : t.begin * kColumnsPerTask;
  const int64_t end = p.rows || t.end * kColumnsPerTask > p.inner ? p.inner : t.end * kColumnsPerTask;
  const int64_t first = p.rows ? t.begin * p.per_row : 0, last = p.rows ? t.end * p.per_row : 1;
  for (int64_t i = first; i < last; ++i)
    for (int64_t j = begin; j < end; j += kLanes)
      columns(i * p.depth * p.inner + j, end - j < kLanes ? end - j : int64_t(kLanes));
}

template <bool kLog>
struct SoftmaxOf : OpDefaults {
  static bool infer(Infer& s) {
    if (!s.expect_inputs(1, 1) || !s.expect_float(0)) return false;
    const Shape& x = s.in(0);
    const int64_t given = s.i("dim", -1), dim = given < 0 ? given + x.rank : given;
    if (dim < 0 || dim >= x.rank)
      return s.fail("dim %lld does not exist in %s of shape %s", (long long)given, s.who(0), s.text(x));
    s.out_like(0);
    s.keep_out();
    auto& p = s.plan<SoftmaxPlan>();
    p.depth = x.dim[dim];
    p.inner = x.count_from(int(dim) + 1);
    p.rows = dim > 0;
    p.per_row = 1;
    for (int i = 1; i < dim; ++i) p.per_row *= x.dim[i];
    const int64_t tasks = p.inner == 1 ? 1 : (p.inner + kColumnsPerTask - 1) / kColumnsPerTask;
    const double ns[2] = {0.4, kLog ? 0.4 : 0.2};
    for (int pass = kForward; pass <= kBackward; ++pass) {
      if (p.rows)
        s.rows(Pass(pass), x.dim[0], ns[pass] * double(x.count_from(1)) + 10 * double(p.per_row), 1);
      else
        s.phase(Pass(pass), tasks, tasks ? ns[pass] * double(x.count()) / double(tasks) : 0);
    }
    return true;
  }

  // y = exp(x - m) / sum exp(x - m), or its logarithm x - m - log sum exp(x - m); m = max x
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<SoftmaxPlan>();
    each_softmax(
        p, t, [&](int64_t at) { forward_row(c.x(0) + at, c.y() + at, p.depth); },
        [&](int64_t at, int64_t lanes) { forward_columns(c.x(0) + at, c.y() + at, p.depth, p.inner, lanes); });
  }
  // softmax: dx = y (dy - sum y dy).  log_softmax: dx = dy - exp(y) sum dy
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<SoftmaxPlan>();
    each_softmax(
        p, t, [&](int64_t at) { backward_row(c.y() + at, c.dy() + at, c.dx(0) + at, p.depth); },
        [&](int64_t at, int64_t lanes) {
          backward_columns(c.y() + at, c.dy() + at, c.dx(0) + at, p.depth, p.inner, lanes);
        });
  }

 private:
  template <class T>
  static PBP_INLINE Vec<T> finish(Vec<T> value, Vec<T> norm) {  // norm: log of the sum, or its reciprocal
    return kLog ? value - norm : value * norm;
  }
  template <class T>
  static PBP_INLINE Vec<T> norm_of(Vec<T> sum) {
    if constexpr (kLog)
      return log(sum);
    else
      return Vec<T>(T(1)) / sum;
  }
  template <class T>
  static PBP_INLINE Vec<T> term(Vec<T> y, Vec<T> dy) {
    return kLog ? dy : y * dy;
  }
  template <class T>
  static PBP_INLINE Vec<T> gradient(Vec<T> y, Vec<T> dy, Vec<T> total) {
    if constexpr (kLog)
      return dy - exp(y) * total;
    else
      return y * (dy - total);
  }

  template <class T>
  static void forward_row(const T* x, T* y, int64_t n) {
    const Vec<T> zero(T(0));
    if (n <= kLanes) {  // few classes: the row stays in a register
      const Vec<T> v = n == kLanes ? Vec<T>::load(x) : Vec<T>::load(x, n, Vec<T>(T(-INFINITY)));
      const Vec<T> d = v - join_lanes<MaxOf<T>>(v), e = exp(d);
      const Vec<T> norm = norm_of(join_lanes<SumOf<T>>(select(first_lanes<T>(n), e, zero)));
      return store_lanes(y, n, finish(kLog ? d : e, norm));
    }
    const Vec<T> m = fold_row<MaxOf<T>>(
        n, zero, [&](int64_t j, int64_t k) __attribute__((always_inline)) { return load_lanes(x + j, k); });
    const Vec<T> sum = fold_row<SumOf<T>>(n, zero, [&](int64_t j, int64_t k) __attribute__((always_inline)) {
      const Vec<T> d = load_lanes(x + j, k) - m, e = exp(d);
      store_lanes(y + j, k, kLog ? d : e);
      return e;
    });
    const Vec<T> norm = norm_of(sum);
    int64_t j = 0;
    for (; j + kLanes <= n; j += kLanes) finish(Vec<T>::load(y + j), norm).store(y + j);
    if (j < n) finish(Vec<T>::load(y + j, n - j), norm).store(y + j, n - j);
  }
  template <class T>
  static void backward_row(const T* y, const T* dy, T* dx, int64_t n) {
    const Vec<T> total = fold_row<SumOf<T>>(n, Vec<T>(T(0)), [&](int64_t j, int64_t k) __attribute__((always_inline)) {
      return term(load_lanes(y + j, k), load_lanes(dy + j, k));
    });
    int64_t j = 0;
    for (; j + kLanes <= n; j += kLanes) gradient(Vec<T>::load(y + j), Vec<T>::load(dy + j), total).store(dx + j);
    if (j < n) gradient(Vec<T>::load(y + j, n - j), Vec<T>::load(dy + j, n - j), total).store(dx + j, n - j);
  }

  // The same for `lanes` neighbouring columns of n elements, `step` apart.
  template <class T>
  static void forward_columns(const T* x, T* y, int64_t n, int64_t step, int64_t lanes) {
    Vec<T> m = MaxOf<T>::start(), sum(T(0));
    for (int64_t i = 0; i < n; ++i) m = nan_max(m, load_lanes(x + i * step, lanes));
    for (int64_t i = 0; i < n; ++i) {
      const Vec<T> d = load_lanes(x + i * step, lanes) - m, e = exp(d);
      store_lanes(y + i * step, lanes, kLog ? d : e);
      sum = sum + e;
    }
    const Vec<T> norm = norm_of(sum);
    for (int64_t i = 0; i < n; ++i) store_lanes(y + i * step, lanes, finish(load_lanes(y + i * step, lanes), norm));
  }
  template <class T>
  static void backward_columns(const T* y, const T* dy, T* dx, int64_t n, int64_t step, int64_t lanes) {
    Vec<T> total(T(0));
    for (int64_t i = 0; i < n; ++i)
      total = total + term(load_lanes(y + i * step, lanes), load_lanes(dy + i * step, lanes));
    for (int64_t i = 0; i < n; ++i)
      store_lanes(dx + i * step, lanes,
                  gradient(load_lanes(y + i * step, lanes), load_lanes(dy + i * step, lanes), total));
  }
};
struct Softmax : SoftmaxOf<false> {
  static constexpr const char* name = "softmax";
};
struct LogSoftmax : SoftmaxOf<true> {
  static constexpr const char* name = "log_softmax";
};

constexpr OpEntry kOps[] = {pbp_op<Softmax>(), pbp_op<LogSoftmax>()};

}  // namespace
}  // namespace pbp

PBP_EXPORT(softmax, kOps)
