// The frame round losses of one element each: weights, reductions, and the loops over a formula l(x, t).
// Inputs: prediction x, target t, [pos_weight], [sample weight w]. The mean is sum_i w_i sum_j l_ij divided by
// width * sum_i w_i, with w = 1 unless given; 0 / 0, where the weights sum to zero, is NaN.
#pragma once
#include "loss.h"

namespace pbp {
namespace {

constexpr int kMaxQuantiles = 32;

struct LossPlan {
  int64_t rows, width;  // elements are (rows, width)
  int64_t run;          // neighbours treated in one go, with one row weight; 0: all of a task's rows
  int64_t period;       // length of the numbers that go with columns: pos_weight, quantiles
  int reduction;
  bool weighted, pos_weighted;
  bool row_sums;    // phase 0 leaves a sum for each row, else (narrow rows) each element's loss
  bool row_target;  // t is one number a row, x is wider
  double count;     // what the unweighted mean divides by
  double option[3];
  double quantile[kMaxQuantiles];
};

// What a loss is besides its formula.
struct LossTraits {
  double cost;  // nanoseconds an element
  bool pos_weight = false, quantiles = false, batch_mean = false, target_gradient = true;
  bool (*options)(Infer&, LossPlan&) = nullptr;
};

// Rows narrower than this leave their elements for phase 1 to sum: a horizontal sum costs more than writing them.
constexpr int64_t kWideRow = 64;
constexpr int64_t kLossBlock = 512;  // elements of a wide row at a time, in L1

// --- Shape rule

static inline bool same_elements(const Shape& x, const Shape& t) {
  return x.same(t) || (x.rank >= 1 && is_column(x, x[0]) && is_column(t, x[0]));
}

// pos_weight has one number, or one for each column (the last dimension).
static inline bool expect_pos_weight(Infer& s, LossPlan& p) {
  if (!s.expect_float(2)) return false;
  s.no_gradient(2);
  const Shape& given = s.in(2);
  const int64_t columns = s.in(0).rank > 1 ? s.in(0)[-1] : 1;
  p.period = given.count();
  if (given.rank <= 1 && (p.period == 1 || p.period == columns)) return true;
  return s.fail("pos_weight expects one number or %lld, one for each column, but %s is %s",
                static_cast<long long>(columns), s.who(2), s.text(given));
}

static bool infer_loss(Infer& s, const LossTraits& loss) {
  LossPlan& p = s.plan<LossPlan>();
  p.weighted = s.i("weighted", 0) != 0;
  p.pos_weighted = s.i("pos_weighted", 0) != 0;
  if (p.pos_weighted && !loss.pos_weight) return s.fail("has no pos_weight");
  p.reduction = read_reduction(s, loss.batch_mean ? kBatchMean : kSum);
  const int n_in = 2 + p.pos_weighted + p.weighted;
  if (p.reduction < 0 || !s.expect_inputs(n_in, n_in) || !s.expect_float(0) || !s.expect_float(1)) return false;
  const Shape& x = s.in(0);
  p.rows = x.rank ? x[0] : 1;
  p.width = x.rank ? x.count_from(1) : 1;
  if (loss.options && !loss.options(s, p)) return false;
  if (p.row_target && !is_column(s.in(1), p.rows))
    return s.fail("expects one target for each of %lld rows, but %s is %s", static_cast<long long>(p.rows), s.who(1),
                  s.text(s.in(1)));
  if (!p.row_target && !same_elements(x, s.in(1)))
    return s.fail("expects a target of the prediction's shape %s, but %s is %s", s.text(x), s.who(1), s.text(s.in(1)));
  if (p.pos_weighted && !expect_pos_weight(s, p)) return false;
  if (p.weighted && !expect_weights(s, n_in - 1, p.rows)) return false;
  p.count = double(p.reduction == kBatchMean ? p.rows : x.count());
  if ((p.reduction == kMean || p.reduction == kBatchMean) && x.count() == 0)
    return s.fail("has no mean over no elements, but %s is %s", s.who(0), s.text(x));

  p.row_sums = p.reduction != kNone && p.width >= kWideRow;
  p.run = p.period > 1 ? p.period : p.row_sums ? p.width : 0;

  if (p.reduction == kNone)
    s.out_like(0);
  else
    s.out(Shape{});
  for (int i = 0; i < n_in; ++i) s.keep_in(i);
  if (!loss.target_gradient) s.no_gradient(1);
  const uint32_t local = 3u | (p.weighted ? 1u << (n_in - 1) : 0u);
  const double row = loss.cost * double(p.width) + (p.run ? 5 : 0);
  s.rows(kForward, p.rows, row, local);
  if (p.reduction != kNone) {
    const int64_t values = p.row_sums ? p.rows : p.rows * p.width;
    s.scratch(kForward, values * int64_t(sizeof(double)));
    s.phase(kForward, 1, 20 + 0.1 * double(values));
    Shape one;
    one.push(1);
    if (p.weighted) s.save(one);  // what the mean divides by
  }
  s.rows(kBackward, p.rows, row, local);
  return true;
}

// --- Loops. A formula Fn<T> has value(x, t, e), dx(x, t, e), dt(x, t, e); e is the column's number.

enum Derivative { kValue, kByX, kByT };

template <class T>
struct LossRun {
  const T *x, *t;
  const T* e;  // by column if kColumn, else one number
  T by;        // factor of all results
};

// y = by * f(x, t, e) over n elements. Out of line, and the last n % 16 elements take a turn of the same loop: formulas
// are long, and there are many of these loops.
template <int kWhat, bool kColumn, bool kRowTarget, class F, class T>
__attribute__((noinline)) void loss_map(const F& fn, const LossRun<T>& r, T* y, int64_t n) {
  const Vec<T> by(r.by), e0(r.e[0]), t0(r.t[0]);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t m = n - i < kLanes ? n - i : kLanes;
    const Vec<T> x = fetch(r.x + i, m);
    const Vec<T> t = kRowTarget ? t0 : fetch(r.t + i, m);
    const Vec<T> e = kColumn ? fetch(r.e + i, m) : e0;
    Vec<T> v;
    if constexpr (kWhat == kValue)
      v = fn.value(x, t, e);
    else if constexpr (kWhat == kByX)
      v = fn.dx(x, t, e);
    else
      v = fn.dt(x, t, e);
    put(v * by, y + i, m);
  }
}

// y[i] *= f[i]
template <class T>
void scale_by(T* y, const T* f, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) (Vec<T>::load(y + i) * Vec<T>::load(f + i)).store(y + i);
  if (i < n) (Vec<T>::load(y + i, n - i) * Vec<T>::load(f + i, n - i)).store(y + i, n - i);
}

// The same where y has n / width rows and f one number for each.
template <class T>
void scale_rows(T* y, const T* f, int64_t n, int64_t width) {
  if (width == 1) return scale_by(y, f, n);
  for (const T* const end = y + n; y < end; y += width, ++f) {
    const T by = *f;
    for (int64_t j = 0; j < width; ++j) y[j] *= by;
  }
}

// --- The op

template <class L>
struct Pointwise : OpDefaults {
  static constexpr const char* name = L::name;

  static bool infer(Infer& s) { return infer_loss(s, L::traits); }

  template <class T>
  static void forward(const Ctx<T>& c, const Task& task) {
    const LossPlan& p = c.template planned<LossPlan>();
    T* const values = p.reduction == kNone ? c.y() : static_cast<T*>(c.scratch);
    if (task.phase == 1) return finish(c, p, values);
    const T* const w = weights(c, p);
    each_run(c, p, task,
             [&](LossRun<T>& r, int64_t first, int64_t n, int64_t row, auto map) __attribute__((always_inline)) {
               if (w && p.run) r.by = w[row];
               if (p.row_sums) {
                 T part = first == row * p.width ? T(0) : values[row];
                 alignas(64) T block[kLossBlock];
                 for (; n > 0; n -= kLossBlock) {
                   const int64_t m = n < kLossBlock ? n : kLossBlock;
                   map.template run<kValue>(r, block, m);
                   part += T(wide_sum<WideTerms>(block, m));
                   r.x += m;
                   if (!p.row_target) r.t += m;
                   if (p.period > 1) r.e += m;
                 }
                 values[row] = part;
               } else {
                 map.template run<kValue>(r, values + first, n);
                 if (w && !p.run) scale_rows(values + first, w + row, n, p.width);
               }
             });
  }

  template <class T>
  static void backward(const Ctx<T>& c, const Task& task) {
    const LossPlan& p = c.template planned<LossPlan>();
    const T* const w = weights(c, p);
    const bool none = p.reduction == kNone;
    T by(1);
    if (p.reduction == kSum)
      by = c.dy()[0];
    else if (!none)
      by = w ? c.dy()[0] / c.kept()[0] : T(double(c.dy()[0]) / p.count);
    each_run(c, p, task,
             [&](LossRun<T>& r, int64_t first, int64_t n, int64_t row, auto map) __attribute__((always_inline)) {
               r.by = w && p.run ? by * w[row] : by;
               const auto finished = [&](T* d) {
                 if (none) scale_by(d, c.dy() + first, n);
                 if (w && !p.run) scale_rows(d, w + row, n, p.width);
               };
               if (T* dx = c.dx(0)) {
                 map.template run<kByX>(r, dx + first, n);
                 finished(dx + first);
               }
               if constexpr (L::traits.target_gradient) {
                 if (T* dt = c.dx(1)) {
                   map.template run<kByT>(r, dt + first, n);
                   finished(dt + first);
                 }
               }
             });
  }

 private:
  template <class T, bool kColumn, bool kRowTarget>
  struct Map {
    typename L::template Fn<T> fn;
    template <int kWhat>
    PBP_INLINE void run(const LossRun<T>& r, T* y, int64_t n) const {
      loss_map<kWhat, kColumn, kRowTarget>(fn, r, y, n);
    }
  };

  template <class T>
  static PBP_INLINE const T* weights(const Ctx<T>& c, const LossPlan& p) {
    return p.weighted ? c.x(2 + p.pos_weighted) : nullptr;
  }

  // The sum and, for a mean, what it is divided by: one task, in double, in an order the shape fixes.
  template <class T>
  static void finish(const Ctx<T>& c, const LossPlan& p, const T* values) {
    const double total = wide_sum<WideTerms>(values, p.row_sums ? p.rows : p.rows * p.width);
    double divisor = p.reduction == kSum ? 1.0 : p.count;
    if (p.weighted && p.reduction != kSum) {
      divisor = wide_sum<WideTerms>(weights(c, p), p.rows) * (p.count / double(p.rows));
      c.kept()[0] = T(divisor);
    }
    c.y()[0] = T(total / divisor);
  }

  // body(run, first element, elements, row, map) over the task's rows.
  template <class T, class Body>
  static PBP_INLINE void each_run(const Ctx<T>& c, const LossPlan& p, const Task& task, const Body& body) {
    T e[kMaxQuantiles];
    const T* column = e;
    e[0] = T(1);
    if constexpr (L::traits.quantiles)
      for (int i = 0; i < kMaxQuantiles; ++i) e[i] = T(p.quantile[i]);
    if (p.pos_weighted) column = c.x(2);
    const typename L::template Fn<T> fn(p.option);
    const int64_t begin = task.begin * p.width, end = task.end * p.width;
    const int64_t step = p.run ? p.run : end - begin;
    for (int64_t at = begin; at < end; at += step) {
      const int64_t row = p.width == 1 ? at : at / p.width;
      LossRun<T> r{c.x(0) + at, c.x(1) + (p.row_target ? row : at), column, T(1)};
      if constexpr (L::traits.quantiles) {
        if (p.row_target) {
          body(r, at, step, row, Map<T, true, true>{fn});
          continue;
        }
      }
      if constexpr (L::traits.pos_weight) {
        if (p.period > 1) {
          body(r, at, step, row, Map<T, true, false>{fn});
          continue;
        }
      }
      body(r, at, step, row, Map<T, false, false>{fn});
    }
  }
};

}  // namespace
}  // namespace pbp
