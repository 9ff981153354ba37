// Losses over classes: cross_entropy of logits (N, C), nll of log-probabilities (N, C).
// Inputs: x, target (labels (N), for cross_entropy also probabilities (N, C)), [class_weight (C)], [sample weight (N)].
// The mean divides by the sum of the weights applied (labels) or of the sample weights (probabilities), as PyTorch's.
// If no row counts, or the weights sum to zero, it is 0 / 0: NaN. Rows of ignored labels have zero gradient even then.
#include "../kernels/exp_below.h"
#include "../kernels/fold.h"
#include "../kernels/loops.h"
#include "../kernels/loss.h"

namespace pbp {
namespace {

struct ClassPlan {
  int64_t rows, classes, ignore;
  int64_t ld;  // distance between rows of powers: whole cache lines, that no store meets two
  int reduction;
  int divisor;  // saved buffer that holds what the mean divides by
  bool probabilities, class_weighted, weighted;
  bool narrow;  // 16 rows at a time, a row in each lane
  bool powers;  // kPowers holds exp(x - maximum): else backward works it out again, to the same bits
  double smoothing;
};

// Up to this many classes lanes are rows: there a horizontal maximum and sum for each row would cost more than exp.
constexpr int64_t kNarrow = 32;

// Arithmetic leaves room to fetch the next row too, if L1 has room for both.
constexpr int64_t kRowInL1 = 2048;

// Saved buffers of cross_entropy.
constexpr int kMaximum = 0;                        // each row's maximum m
constexpr int kTotal = 1;                          // its sum of exp(x - m)
constexpr int kLog = 2;                            // the sum's log: kept apart from m, large logits lose no digits
constexpr int kPowers = 3;                         // exp(x - m), if ClassPlan::powers
constexpr int64_t kMostPowers = int64_t(2) << 20;  // from DRAM a power takes longer to fetch than to work out again

// --- Shape rule

static bool infer_class_loss(Infer& s, bool entropy) {
  ClassPlan& p = s.plan<ClassPlan>();
  p.class_weighted = s.i("class_weighted", 0) != 0;
  p.weighted = s.i("weighted", 0) != 0;
  p.ignore = s.i("ignore_index", -100);
  p.smoothing = entropy ? s.f("label_smoothing", 0.0) : 0.0;
  p.reduction = read_reduction(s, kSum);
  const int n_in = 2 + p.class_weighted + p.weighted;
  if (p.reduction < 0 || !s.expect_inputs(n_in, n_in) || !s.expect_float(0)) return false;
  if (!(p.smoothing >= 0 && p.smoothing <= 1)) return s.fail("label_smoothing must be in [0, 1], got %g", p.smoothing);
  const Shape& x = s.in(0);
  if (x.rank != 2 || x[1] < 1) return s.fail("expects (rows, classes), but %s is %s", s.who(0), s.text(x));
  p.rows = x[0];
  p.classes = x[1];
  const long long rows = p.rows, classes = p.classes;
  p.probabilities = entropy && !s.is_int(1);
  if (p.probabilities) {
    if (!s.in(1).same(x))
      return s.fail("expects integer labels (%lld,) or probabilities (%lld, %lld), but %s holds floating-point %s",
                    rows, rows, classes, s.who(1), s.text(s.in(1)));
  } else {
    if (!s.expect_int(1, 0, p.classes, "labels", p.ignore)) return false;
    s.no_gradient(1);
    if (!is_column(s.in(1), p.rows))
      return s.fail("expects one label for each of %lld rows, but %s is %s", rows, s.who(1), s.text(s.in(1)));
  }
  if (p.class_weighted) {
    if (!s.expect_float(2)) return false;
    s.no_gradient(2);
    if (s.in(2).rank != 1 || s.in(2)[0] != p.classes)
      return s.fail("expects one weight for each of %lld classes, but %s is %s", classes, s.who(2), s.text(s.in(2)));
  }
  if (p.weighted && !expect_weights(s, n_in - 1, p.rows)) return false;
  if (p.reduction == kMean && p.rows == 0) return s.fail("has no mean over no rows, but %s is %s", s.who(0), s.text(x));
  p.narrow = !p.probabilities && p.smoothing == 0 && p.classes <= kNarrow;

  Shape per_row;
  if (p.reduction == kNone) per_row.push(p.rows);
  s.out(per_row);
  if (entropy) s.keep_in(0);
  for (int i = 1; i < n_in; ++i) s.keep_in(i);
  Shape column, one;
  column.push(p.rows);
  one.push(1);
  if (entropy) {
    for (int i = kMaximum; i <= kLog; ++i) s.save(column);
    // Evaluation wants a loss only, as a rule, and would pay for the writing.
    p.powers = s.training() && !p.narrow && p.rows * p.classes <= kMostPowers;
    Shape padded;
    padded.push(p.rows);
    padded.push(p.ld = (p.classes + kLanes - 1) / kLanes * kLanes);
    if (p.powers) s.save(padded);
  }
  const uint32_t local = 3u | (p.weighted ? 1u << (n_in - 1) : 0u);
  double forward = 0.05, backward = 0.05, each = 5;  // nanoseconds for each class, and for each row
  if (p.narrow) {
    forward = backward = 0.5;
  } else if (entropy) {
    const double spread = p.probabilities || p.smoothing > 0 ? 0.2 : 0;  // weight for every class
    forward = 0.19 + spread, backward = (p.powers ? 0.09 : 0.16) + spread, each = 20;
  }
  const double width = double(p.classes);
  s.rows(kForward, p.rows, forward * width + each, local);
  if (p.reduction != kNone) {
    s.scratch(kForward, 2 * p.rows * int64_t(sizeof(double)));
    s.phase(kForward, 1, 20 + 0.2 * double(p.rows));
  }
  if (p.reduction == kMean) p.divisor = s.save(one);
  s.rows(kBackward, p.rows, backward * width + each, local);
  return true;
}

// --- Weights and reduction

template <class T>
struct ClassRows {
  const Ctx<T>& c;
  const ClassPlan& p;
  const T* x;
  const int64_t* label;  // null: probabilities
  const T* probability;
  const T* class_weight;  // or null
  const T* weight;        // or null
  T *loss, *applied;      // by row; `applied` is null without reduction

  PBP_INLINE explicit ClassRows(const Ctx<T>& ctx)
      : c(ctx),
        p(ctx.template planned<ClassPlan>()),
        x(c.x(0)),
        label(p.probabilities ? nullptr : c.ids(1)),
        probability(p.probabilities ? c.x(1) : nullptr),
        class_weight(p.class_weighted ? c.x(2) : nullptr),
        weight(p.weighted ? c.x(2 + p.class_weighted) : nullptr),
        loss(nullptr),
        applied(nullptr) {}

  PBP_INLINE void writes_losses() {
    loss = p.reduction == kNone ? c.y() : static_cast<T*>(c.scratch);
    applied = p.reduction == kNone ? nullptr : loss + p.rows;
  }
  PBP_INLINE bool ignored(int64_t row) const { return label && label[row] == p.ignore; }
  PBP_INLINE T of_sample(int64_t row) const { return weight ? weight[row] : T(1); }
  PBP_INLINE T of_class(int64_t row) const { return class_weight ? class_weight[label[row]] : T(1); }
  PBP_INLINE void put_loss(int64_t row, T l, T w) const {
    loss[row] = l;
    if (applied) applied[row] = w;
  }

  // One task, in double, in an order the shape fixes.
  void finish() const {
    double divisor = 1.0;
    if (p.reduction == kMean) {
      divisor = wide_sum<WideTerms>(applied, p.rows);
      c.kept(p.divisor)[0] = T(divisor);
    }
    c.y()[0] = T(wide_sum<WideTerms>(loss, p.rows) / divisor);
  }
  // d(result) / d(the row's loss before its weights), times the sample's weight.
  PBP_INLINE T row_gradient(int64_t row) const {
    T d = p.reduction == kNone ? c.dy()[row] : c.dy()[0];
    if (p.reduction == kMean) d = d / c.kept(p.divisor)[0];
    return d * of_sample(row);
  }
};

// --- Arithmetic of a row

// The maximum without NaN, at half the cost: NaN comes back in the sum of exp.
template <class T>
struct TopOf : MaxOf<T> {
  static PBP_INLINE Vec<T> step(Vec<T> a, Vec<T> x, Vec<T>, Vec<T>) { return max(x, a); }
  static PBP_INLINE Vec<T> join(Vec<T> a, Vec<T> b) { return max(b, a); }
};

// What to subtract from logits of this maximum: exp(-inf - 0) is 0, exp(-inf + inf) would be NaN.
template <class T>
PBP_INLINE Vec<T> shift_of(Vec<T> top) {
  return select(top == Vec<T>(T(-INFINITY)), Vec<T>(T(0)), top);
}

// The maximum of n logits and the sum of exp(x - maximum), whose terms go to `powers`, if there. The second pass finds
// the row in L1 or L2, and fetches the next one.
template <class T>
void sum_powers(const T* x, int64_t n, T* maximum, T* total, T* powers) {
  const T* next = n <= kRowInL1 ? x + n : x;
  const Vec<T> none(T(0));
  const Vec<T> m = shift_of(fold_row<TopOf<T>>(
      n, none, [&](int64_t j, int64_t k) __attribute__((always_inline)) { return load_lanes(x + j, k); }));
  m.store(maximum, 1);
  const auto power = [&](int64_t j, int64_t k) __attribute__((always_inline)) {
    __builtin_prefetch(next + j);
    return exp_below(load_lanes(x + j, k) - m);
  };
  const auto kept_power = [&](int64_t j, int64_t k) __attribute__((always_inline)) {
    const Vec<T> e = power(j, k);
    store_lanes(powers + j, k, e);
    return e;
  };
  const Vec<T> sum = powers ? fold_row<SumOf<T>>(n, none, kept_power) : fold_row<SumOf<T>>(n, none, power);
  sum.store(total, 1);
}

// A row's target as a distribution: q_c = w_c * (scale * t_c + shift), t from `t` (null: none), w from `w` (null: 1).
template <class T>
struct Target {
  const T *t, *w;
  T scale, shift;
  PBP_INLINE Vec<T> at(int64_t i, int64_t n) const {
    Vec<T> q(shift);
    if (t) q = fma(Vec<T>(scale), fetch(t + i, n), q);
    if (w) q = q * fetch(w + i, n);
    return q;
  }
};

// sum_c q_c * (log_of_sum - (x_c - maximum)), and sum_c q_c.
template <class T>
T target_entropy(const Target<T>& q, const T* x, T maximum, T log_of_sum, int64_t n, T* mass) {
  Vec<T> total(T(0)), weights(T(0));
  const Vec<T> m(maximum), l(log_of_sum);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t k = n - i < kLanes ? n - i : kLanes;
    const Vec<T> qi = select(first_lanes<T>(k), q.at(i, k), Vec<T>(T(0)));
    weights = weights + qi;
    if (x) total = total + select(first_lanes<T>(k), qi * (l - (fetch(x + i, k) - m)), Vec<T>(T(0)));
  }
  *mass = sum(weights);
  return sum(total);
}

// dx = by * exp(x - maximum) from their powers, or, without, from x itself.
template <class T>
void scaled_powers(const T* x, T maximum, const T* powers, T by, T* dx, int64_t n) {
  const Vec<T> m(maximum), b(by);
  if (powers)
    map<T>(n, [=](Vec<T> e) __attribute__((always_inline)) { return b * e; }, dx, powers);
  else
    map<T>(n, [=](Vec<T> v) __attribute__((always_inline)) { return b * exp_below(v - m); }, dx, x);
}

// --- Ops

struct CrossEntropy : OpDefaults {
  static constexpr const char* name = "cross_entropy";
  static bool infer(Infer& s) { return infer_class_loss(s, true); }

  // loss = sum_c q_c (lse - x_c), lse = log sum_c exp(x_c). For a label y, q = w_y (1 - smoothing) at y, plus
  // w_c smoothing / C everywhere; for probabilities t, q_c = w_c ((1 - smoothing) t_c + smoothing / C).
  template <class T>
  static void forward(const Ctx<T>& c, const Task& task) {
    ClassRows<T> rows(c);
    rows.writes_losses();
    if (task.phase == 1) return rows.finish();
    if (rows.p.narrow)
      for (int64_t row = task.begin; row < task.end; row += kLanes)
        narrow_forward(rows, row, task.end - row < kLanes ? task.end - row : kLanes);
    else
      for (int64_t row = task.begin; row < task.end; row += kLanes)
        wide_forward(rows, row, task.end - row < kLanes ? task.end - row : kLanes);
  }

  // dx_c = d (softmax(x)_c sum_k q_k - q_c);  dt_c = d w_c (1 - smoothing) (lse - x_c)
  template <class T>
  static void backward(const Ctx<T>& c, const Task& task) {
    const ClassRows<T> rows(c);
    const ClassPlan& p = rows.p;
    if (c.dx(0) && p.narrow)
      for (int64_t row = task.begin; row < task.end; row += kLanes)
        narrow_backward(rows, row, task.end - row < kLanes ? task.end - row : kLanes);
    else if (c.dx(0))
      for (int64_t row = task.begin; row < task.end; ++row) row_backward(rows, row);
    if (p.probabilities && c.dx(1))
      for (int64_t row = task.begin; row < task.end; ++row) target_backward(rows, row);
  }

 private:
  template <class T>
  static PBP_INLINE Target<T> target_of(const ClassRows<T>& r, int64_t row) {
    const T share = T(1.0 - r.p.smoothing), shift = T(r.p.smoothing / double(r.p.classes));
    return {r.probability ? r.probability + row * r.p.classes : nullptr, r.class_weight, share, shift};
  }

  template <class T>
  static PBP_INLINE void label_forward(const ClassRows<T>& r, int64_t row, T even) {
    if (r.ignored(row)) return r.put_loss(row, T(0), T(0));
    const T z = r.x[row * r.p.classes + r.label[row]] - r.c.kept(kMaximum)[row];
    const T of_class = r.of_class(row), of_sample = r.of_sample(row);
    const T l = T(1.0 - r.p.smoothing) * of_class * (r.c.kept(kLog)[row] - z) + even;
    r.put_loss(row, l * of_sample, of_class * of_sample);
  }

  template <class T>
  static PBP_INLINE T* powers_of(const ClassRows<T>& r, int64_t row) {
    return r.p.powers ? r.c.kept(kPowers) + row * r.p.ld : nullptr;
  }

  // Rows [row, row + n), n <= 16: so many logs cost no more than one.
  template <class T>
  static void wide_forward(const ClassRows<T>& r, int64_t row, int64_t n) {
    const int64_t classes = r.p.classes;
    T *const m = r.c.kept(kMaximum), *const sum = r.c.kept(kTotal), *const l = r.c.kept(kLog);
    for (int64_t i = row; i < row + n; ++i) sum_powers(r.x + i * classes, classes, m + i, sum + i, powers_of(r, i));
    put(log(fetch(sum + row, n)), l + row, n);
    for (int64_t i = row; i < row + n; ++i) {
      T mass, even(0);
      if (r.probability || r.p.smoothing > 0)
        even = target_entropy(target_of(r, i), r.x + i * classes, m[i], l[i], classes, &mass);
      if (r.label)
        label_forward(r, i, even);
      else
        r.put_loss(i, even * r.of_sample(i), r.of_sample(i));
    }
  }

  template <class T>
  static void row_backward(const ClassRows<T>& r, int64_t row) {
    const int64_t n = r.p.classes;
    T* dx = r.c.dx(0) + row * n;
    if (r.ignored(row)) {
      memset(dx, 0, size_t(n) * sizeof(T));
      return;
    }
    const T d = r.row_gradient(row);
    const Target<T> q = target_of(r, row);
    const bool even = r.probability || r.p.smoothing > 0;
    const T at_label = r.label ? T(1.0 - r.p.smoothing) * r.of_class(row) : T(0);
    T mass(0);
    if (even) target_entropy<T>(q, nullptr, T(0), T(0), n, &mass);
    scaled_powers(r.x + row * n, r.c.kept(kMaximum)[row], powers_of(r, row),
                  d * (mass + at_label) / r.c.kept(kTotal)[row], dx, n);
    if (even) {
      const Vec<T> by(-d);
      for (int64_t i = 0; i < n; i += kLanes) {
        const int64_t k = n - i < kLanes ? n - i : kLanes;
        put(fma(by, q.at(i, k), fetch(dx + i, k)), dx + i, k);
      }
    }
    if (r.label) dx[r.label[row]] -= d * at_label;
  }

  template <class T>
  static void target_backward(const ClassRows<T>& r, int64_t row) {
    const int64_t n = r.p.classes;
    const T* x = r.x + row * n;
    T* dt = r.c.dx(1) + row * n;
    const Vec<T> d(r.row_gradient(row) * T(1.0 - r.p.smoothing)), m(r.c.kept(kMaximum)[row]), l(r.c.kept(kLog)[row]);
    for (int64_t i = 0; i < n; i += kLanes) {
      const int64_t k = n - i < kLanes ? n - i : kLanes;
      Vec<T> g = d * (l - (fetch(x + i, k) - m));
      if (r.class_weight) g = g * fetch(r.class_weight + i, k);
      put(g, dt + i, k);
    }
  }

  // Rows [row, row + n), n <= 16, transposed: one row in each lane.
  template <class T>
  static void narrow_forward(const ClassRows<T>& r, int64_t row, int64_t n) {
    const int64_t classes = r.p.classes;
    const T* x = r.x + row * classes;
    alignas(64) T lanes[kNarrow * kLanes] = {};
    for (int64_t k = 0; k < n; ++k)
      for (int64_t j = 0; j < classes; ++j) lanes[j * kLanes + k] = x[k * classes + j];
    Vec<T> top = Vec<T>::load(lanes);
    for (int64_t j = 1; j < classes; ++j) top = nan_max(top, Vec<T>::load(lanes + j * kLanes));
    const Vec<T> m = shift_of(top);
    Vec<T> total(T(0));
    for (int64_t j = 0; j < classes; ++j) total = total + exp_below(Vec<T>::load(lanes + j * kLanes) - m);
    put(m, r.c.kept(kMaximum) + row, n);
    put(total, r.c.kept(kTotal) + row, n);
    put(log(total), r.c.kept(kLog) + row, n);
    for (int64_t k = 0; k < n; ++k) label_forward(r, row + k, T(0));
  }

  template <class T>
  static void narrow_backward(const ClassRows<T>& r, int64_t row, int64_t n) {
    const int64_t classes = r.p.classes;
    const T* x = r.x + row * classes;
    T* dx = r.c.dx(0) + row * classes;
    T by[kLanes];
    alignas(64) T maximum[kNarrow * kLanes], log_of_sum[kNarrow * kLanes], scale[kNarrow * kLanes];
    for (int64_t k = 0; k < n; ++k) {
      const T m = r.c.kept(kMaximum)[row + k], l = r.c.kept(kLog)[row + k];
      by[k] = r.ignored(row + k) ? T(0) : r.row_gradient(row + k) * r.of_class(row + k);
      for (int64_t j = k * classes; j < (k + 1) * classes; ++j) {
        maximum[j] = m;
        log_of_sum[j] = l;
        scale[j] = by[k];
      }
    }
    const int64_t count = n * classes;
    for (int64_t i = 0; i < count; i += kLanes) {
      const int64_t k = count - i < kLanes ? count - i : kLanes;
      const Vec<T> z = (fetch(x + i, k) - Vec<T>::load(maximum + i)) - Vec<T>::load(log_of_sum + i);
      const Vec<T> g = Vec<T>::load(scale + i) * exp(z);
      put(g, dx + i, k);
    }
    for (int64_t k = 0; k < n; ++k) {
      if (r.ignored(row + k))
        memset(dx + k * classes, 0, size_t(classes) * sizeof(T));
      else
        dx[k * classes + r.label[row + k]] -= by[k];
    }
  }
};

// loss = -w_y x_y for log-probabilities x.
struct Nll : OpDefaults {
  static constexpr const char* name = "nll";
  static bool infer(Infer& s) { return infer_class_loss(s, false); }

  template <class T>
  static void forward(const Ctx<T>& c, const Task& task) {
    ClassRows<T> r(c);
    r.writes_losses();
    if (task.phase == 1) return r.finish();
    for (int64_t row = task.begin; row < task.end; ++row) {
      if (r.ignored(row)) {
        r.put_loss(row, T(0), T(0));
      } else {
        const T w = r.of_class(row) * r.of_sample(row);
        r.put_loss(row, -w * r.x[row * r.p.classes + r.label[row]], w);
      }
    }
  }

  template <class T>
  static void backward(const Ctx<T>& c, const Task& task) {
    const ClassRows<T> r(c);
    const int64_t n = r.p.classes;
    if (!c.dx(0)) return;
    memset(c.dx(0) + task.begin * n, 0, size_t((task.end - task.begin) * n) * sizeof(T));
    for (int64_t row = task.begin; row < task.end; ++row)
      if (!r.ignored(row)) c.dx(0)[row * n + r.label[row]] = -r.row_gradient(row) * r.of_class(row);
  }
};

constexpr OpEntry kOps[] = {pbp_op<CrossEntropy>(), pbp_op<Nll>()};

}  // namespace
}  // namespace pbp

PBP_EXPORT(class_losses, kOps)
