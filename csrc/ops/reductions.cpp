// sum, mean, max, min, logsumexp over any dimensions.
#include <math.h>

#include "../kernels/export.h"
#include "../kernels/math.h"
#include "../kernels/reduce.h"

namespace pbp {
namespace {

struct ReductionPlan {
  Groups g;
  Split split;
  int64_t row_outputs, row_elements;  // in one index of dimension 0
  bool rows;                          // dimension 0 is kept: each of its indices is a row of its own
};

constexpr int64_t kSpreadElements = 1024;  // elements a task of a barriered backward stores

PBP_INLINE bool infer_reduction(Infer& s, bool empty_ok, double forward_ns, double backward_ns, bool ties) {
  if (!s.expect_inputs(1, 1) || !s.expect_float(0)) return false;
  const Shape& x = s.in(0);
  int64_t dims[kMaxRank];
  const int n = s.ints("dims", dims, kMaxRank);
  const bool keepdim = s.i("keepdim", 0) != 0;
  bool reduced[kMaxRank];
  for (int i = 0; i < kMaxRank; ++i) reduced[i] = n < 0;
  for (int k = 0; k < n; ++k) {
    const int64_t d = dims[k] < 0 ? dims[k] + x.rank : dims[k];
    if (d < 0 || d >= x.rank)
      return s.fail("dim %lld does not exist in %s of shape %s", (long long)dims[k], s.who(0), s.text(x));
    if (reduced[d]) return s.fail("dim %lld is named twice", (long long)d);
    reduced[d] = true;
  }
  Shape y;
  auto& p = s.plan<ReductionPlan>();
  p.g = Groups();
  for (int i = 0; i < x.rank; ++i) {
    p.g.push(x.dim[i], !reduced[i]);
    if (!reduced[i] || keepdim) y.push(reduced[i] ? 1 : x.dim[i]);
  }
  p.g.finish();
  if (!empty_ok && p.g.reduced == 0)
    return s.fail("needs at least one element to reduce, but %s has shape %s", s.who(0), s.text(x));
  s.out(y);

  const int64_t outputs = p.g.outputs, elements = x.count();
  p.rows = x.rank > 0 && !reduced[0];
  p.split = p.rows ? Split{1, 1} : split_first(p.g);
  const int64_t tasks = (outputs + kOutputsPerTask - 1) / kOutputsPerTask;
  if (p.rows) {
    const int64_t n0 = x.dim[0];
    p.row_outputs = n0 ? outputs / n0 : 0;
    p.row_elements = n0 ? elements / n0 : 0;
    s.rows(kForward, n0, forward_ns * double(p.row_elements) + 2 * double(p.row_outputs), 1);
    s.rows(kBackward, n0, backward_ns * double(p.row_elements) + 2 * double(p.row_outputs), 1);
    if (ties) s.scratch(kBackward, outputs * int64_t(sizeof(double)));
    return true;
  }
  if (p.split.blocks > 1) {
    s.phase(kForward, p.split.blocks, forward_ns * double(p.split.block * p.g.x[0]));
    s.phase(kForward, tasks, double(p.split.blocks * kOutputsPerTask));
    s.scratch(kForward, p.split.blocks * outputs * int64_t(sizeof(double)));
  } else {
    s.phase(kForward, tasks, tasks ? forward_ns * double(elements) / double(tasks) : 0);
  }
  if (ties) {
    s.phase(kBackward, tasks, tasks ? 0.1 * double(elements) / double(tasks) : 0);
    s.scratch(kBackward, outputs * int64_t(sizeof(double)));
  }
  s.phase(kBackward, (elements + kSpreadElements - 1) / kSpreadElements, backward_ns * double(kSpreadElements));
  return true;
}

// `Part` stores partial results of one block into its row of scratch, `Whole` combines and finishes.
template <class T, class Part, class Whole>
PBP_INLINE void reduce_forward(const Ctx<T>& c, const Task& t, Part part, Whole whole) {
  const auto& p = c.template planned<ReductionPlan>();
  const T* x = c.x(0);
  if (p.rows) return reduce_outputs(p.g, x, t.begin * p.row_outputs, t.end * p.row_outputs, whole);
  T* partial = static_cast<T*>(c.scratch);
  if (p.split.blocks > 1 && t.phase == 0) {
    for (int64_t b = t.begin; b < t.end; ++b) {
      const int64_t first = b * p.split.block;
      const int64_t last = first + p.split.block < p.g.size[0] ? first + p.split.block : p.g.size[0];
      part.y = partial + b * p.g.outputs;
      reduce_outputs(p.g.part(first, last), x + first * p.g.x[0], 0, p.g.outputs, part);
    }
    return;
  }
  const int64_t begin = t.begin * kOutputsPerTask;
  const int64_t end = t.end * kOutputsPerTask < p.g.outputs ? t.end * kOutputsPerTask : p.g.outputs;
  if (p.split.blocks > 1)
    reduce_outputs(partial_groups(p.g, p.split), static_cast<const T*>(partial), begin, end, whole);
  else
    reduce_outputs(p.g, x, begin, end, whole);
}

template <class T, class F>
PBP_INLINE void reduce_backward(const Ctx<T>& c, const Task& t, const T* ties, const F& f) {
  const auto& p = c.template planned<ReductionPlan>();
  const int64_t step = p.rows ? p.row_elements : kSpreadElements, elements = p.g.outputs * p.g.reduced;
  const int64_t end = t.end * step < elements ? t.end * step : elements;
  const T* x = F::kUses & 1 ? c.x(0) : nullptr;
  const T* y = F::kUses & 2 ? c.y(0) : nullptr;
  spread(p.g, t.begin * step, end, c.dx(0), x, y, c.dy(0), ties, f);
}

// dx = dy / count
template <class T>
struct Share {
  static constexpr int kUses = 0;
  T divisor;
  PBP_INLINE Vec<T> operator()(Vec<T>, Vec<T>, Vec<T> dy, Vec<T>) const {
    return divisor == T(1) ? dy : dy / Vec<T>(divisor);
  }
};
// dx = dy / ties where x is the extreme value; 0 * inf = NaN everywhere in a group whose result is NaN, as in PyTorch
template <class T>
struct ShareTies {
  static constexpr int kUses = 7;
  PBP_INLINE Vec<T> operator()(Vec<T> x, Vec<T> y, Vec<T> dy, Vec<T> ties) const {
    return dy / ties * select(x == y, Vec<T>(T(1)), Vec<T>(T(0)));
  }
};
// dx = dy exp(x - y)
template <class T>
struct ShareExp {
  static constexpr int kUses = 3;
  PBP_INLINE Vec<T> operator()(Vec<T> x, Vec<T> y, Vec<T> dy, Vec<T>) const { return dy * exp(x - y); }
};

struct Sum : OpDefaults {
  static constexpr const char* name = "sum";
  static bool infer(Infer& s) { return infer_reduction(s, true, 0.1, 0.1, false); }
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const Plain<T, SumOf<T>> sum{c.y(), T(1)};
    reduce_forward(c, t, sum, sum);
  }
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    reduce_backward<T>(c, t, nullptr, Share<T>{T(1)});
  }
};

struct Mean : OpDefaults {
  static constexpr const char* name = "mean";
  static bool infer(Infer& s) { return infer_reduction(s, false, 0.1, 0.1, false); }
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const T count = T(c.template planned<ReductionPlan>().g.reduced);
    reduce_forward(c, t, Plain<T, SumOf<T>>{c.y(), T(1)}, Plain<T, SumOf<T>>{c.y(), count});
  }
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    reduce_backward<T>(c, t, nullptr, Share<T>{T(c.template planned<ReductionPlan>().g.reduced)});
  }
};

// Largest or smallest element; ties share the gradient equally. R is MaxOf or MinOf.
template <template <class> class R>
struct Extreme : OpDefaults {
  static bool infer(Infer& s) {
    if (!infer_reduction(s, false, 0.1, 0.3, true)) return false;
    s.keep_in(0);
    s.keep_out();
    return true;
  }
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const Plain<T, R<T>> extreme{c.y(), T(1)};
    reduce_forward(c, t, extreme, extreme);
  }
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<ReductionPlan>();
    T* ties = static_cast<T*>(c.scratch);
    if (t.phase == 0) {
      const int64_t step = p.rows ? p.row_outputs : kOutputsPerTask;
      const int64_t end = t.end * step < p.g.outputs ? t.end * step : p.g.outputs;
      reduce_outputs(p.g, c.x(0), t.begin * step, end, Ties<T>{c.y(), ties});
      if (!p.rows) return;
    }
    reduce_backward<T>(c, t, ties, ShareTies<T>());
  }
};
struct Max : Extreme<MaxOf> {
  static constexpr const char* name = "max";
};
struct Min : Extreme<MinOf> {
  static constexpr const char* name = "min";
};

template <class T>
struct ExpSumOf {
  static constexpr bool kPair = false;
  static PBP_INLINE Vec<T> start() { return Vec<T>(T(0)); }
  static PBP_INLINE Vec<T> step(Vec<T> a, Vec<T> x, Vec<T> top, Vec<T>) { return a + exp(x - top); }
  static PBP_INLINE Vec<T> join(Vec<T> a, Vec<T> b) { return a + b; }
};

// log sum exp(x - m) + m with m = max x, or 0 where that is infinite (inf - inf would be NaN).
template <class T>
struct LogSumExpKind {
  T* y;
  template <class Unit>
  PBP_INLINE void run(const Unit& u) const {
    Vec<T> m[Unit::kVecs], v[Unit::kVecs];
    for (int w = 0; w < Unit::kVecs; ++w) v[w] = Vec<T>(T(0));
    u.template reduce<MaxOf<T>>(v, m);
    for (int w = 0; w < Unit::kVecs; ++w) m[w] = select(abs(m[w]) == Vec<T>(T(INFINITY)), Vec<T>(T(0)), m[w]);
    u.template reduce<ExpSumOf<T>>(m, v);
    for (int w = 0; w < Unit::kVecs; ++w) v[w] = log(v[w]) + m[w];
    u.store(y, v);
  }
};

struct LogSumExp : OpDefaults {
  static constexpr const char* name = "logsumexp";
  static bool infer(Infer& s) {
    if (!infer_reduction(s, true, 0.5, 0.4, false)) return false;
    s.keep_in(0);
    s.keep_out();
    return true;
  }
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const LogSumExpKind<T> kind{c.y()};
    reduce_forward(c, t, kind, kind);
  }
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    reduce_backward<T>(c, t, nullptr, ShareExp<T>());
  }
};

constexpr OpEntry kOps[] = {pbp_op<Sum>(), pbp_op<Mean>(), pbp_op<Max>(), pbp_op<Min>(), pbp_op<LogSumExp>()};

}  // namespace
}  // namespace pbp

PBP_EXPORT(reductions, kOps)
