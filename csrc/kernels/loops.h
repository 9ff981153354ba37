// Loops over Vecs, how elementwise work is cut into tasks, and the base of every op of one element.
#pragma once
#include "export.h"
#include "vec.h"

namespace pbp {
namespace {

// y[i] = f(x[i]...) for i < n. The tail goes through the same f, its spare lanes hold zeros. y may be one of x.
template <class T, class F, class... X>
PBP_INLINE void map(int64_t n, F f, T* y, const X*... x) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(Vec<T>::load(x + i)...).store(y + i);
  if (i < n) f(Vec<T>::load(x + i, n - i)...).store(y + i, n - i);
}

// Elementwise work on a shape, cut into tasks of `grain` elements: indices of the first dimension, as neighbours are
// cut and thus without a barrier, unless they are too few to share.
struct Cut {
  int64_t grain, tasks;
  bool rows;
};
PBP_INLINE Cut cut_elements(const Shape& s) {
  constexpr int64_t kBlock = 1024, kManyRows = 32;
  const int64_t n = s.count();
  if (n == 0) return {1, 0, true};
  const int64_t dim0 = s.rank ? s.dim[0] : 1;
  if (dim0 >= kManyRows || n <= 4 * kBlock) return {n / dim0, dim0, true};
  return {kBlock, (n + kBlock - 1) / kBlock, false};
}
PBP_INLINE void cut_phase(Infer& s, Pass pass, const Cut& c, double ns_per_element, uint32_t local) {
  if (c.rows)
    s.rows(pass, c.tasks, ns_per_element * double(c.grain), local);
  else
    s.phase(pass, c.tasks, ns_per_element * double(c.grain));
}

// Nanoseconds per element, on the level being compiled, of work that takes `ns` with AVX-512: what is not bound by
// arithmetic takes as long with narrower registers.
constexpr double scaled_ns(double ns) { return ns <= 0.12 ? ns : ns * 64 / kVecBytes; }

// A function of one element. An op derives from Elementwise<Itself, kReadsX or kReadsY> (what df reads) and has
//   struct Plan { … };                                            its options, if any
//   static bool options(Infer& s, Plan& p);                       reads and checks them, if any
//   static constexpr double kForwardNs, kBackwardNs;              cost of an element on AVX-512
//   template <class T> static Vec<T> f(const Plan&, Vec<T> x);
//   template <class T> static Vec<T> df(const Plan&, Vec<T> v, Vec<T> dy);   dx = dy * f'(x), v being x or y
enum Reads { kReadsX, kReadsY };

template <class Op, Reads reads>
struct Elementwise : OpDefaults {
  static constexpr uint32_t flags = reads == kReadsX ? uint32_t(kRowFnNeedsX) : 0u;
  static constexpr bool has_row = true;

  struct Plan {};
  template <class P>
  static PBP_INLINE bool options(Infer&, P&) {
    return true;
  }

  template <class P>
  struct Planned {  // begins with the op's own plan: that is what rows see
    P own;
    int64_t grain;
  };

  static bool infer(Infer& s) {
    typedef typename Op::Plan P;
    static_assert(sizeof(Planned<P>) <= 64, "linear copies a row function's plan");
    if (!s.expect_inputs(1, 1) || !s.expect_float(0)) return false;
    auto& plan = s.plan<Planned<P>>();
    if (!Op::options(s, plan.own)) return false;
    const Cut cut = cut_elements(s.in(0));
    plan.grain = cut.grain;
    s.out_like(0);
    if (reads == kReadsX)
      s.keep_in(0);
    else
      s.keep_out(0);
    cut_phase(s, kForward, cut, scaled_ns(Op::kForwardNs), 1);
    cut_phase(s, kBackward, cut, scaled_ns(Op::kBackwardNs), 1);
    return true;
  }

  template <class T>
  static void row_forward(const void* plan, const void* x, void* y, int64_t n) {
    typedef typename Op::Plan P;
    const P p = *static_cast<const P*>(plan);
    map<T>(
        n, [&p](Vec<T> v) __attribute__((always_inline)) { return Op::f(p, v); }, static_cast<T*>(y),
        static_cast<const T*>(x));
  }
  template <class T>
  static void row_backward(const void* plan, const void* x, const void* y, const void* dy, void* dx, int64_t n) {
    typedef typename Op::Plan P;
    const P p = *static_cast<const P*>(plan);
    map<T>(
        n, [&p](Vec<T> v, Vec<T> d) __attribute__((always_inline)) { return Op::df(p, v, d); }, static_cast<T*>(dx),
        static_cast<const T*>(reads == kReadsX ? x : y), static_cast<const T*>(dy));
  }

  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const Range r = range<T>(c, c.out[0].count(), t);
    row_forward<T>(c.plan, c.x(0) + r.begin, c.y() + r.begin, r.n);
  }
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    if (!c.dx(0)) return;
    const Range r = range<T>(c, c.d_in[0].count(), t);
    const T* v = (reads == kReadsX ? c.x(0) : c.y()) + r.begin;
    row_backward<T>(c.plan, v, v, c.dy() + r.begin, c.dx(0) + r.begin, r.n);
  }

 private:
  struct Range {
    int64_t begin, n;
  };
  template <class T>
  static PBP_INLINE Range range(const Ctx<T>& c, int64_t count, const Task& t) {
    const int64_t grain = c.template planned<Planned<typename Op::Plan>>().grain;
    const int64_t begin = t.begin * grain, end = t.end * grain;
    return {begin, (end < count ? end : count) - begin};
  }
};

}  // namespace
}  // namespace pbp
