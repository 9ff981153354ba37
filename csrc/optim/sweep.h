// The one loop of every update rule, and the sum of squares that clipping by norm needs. A rule is an `Update<T>`:
// 16 elements of weight, gradient and state in, 16 new ones out. The last n % 16 elements take the same road on a
// padded vector, so a result never depends on where a span was cut.
#pragma once
#include <math.h>

#include "../core/optim.h"
#include "../kernels/root.h"
#include "../kernels/wide.h"

namespace pbp {
namespace {

// g * scale, then clamped to [-clip, clip]. NaN stays NaN.
template <class T, bool kClip>
PBP_INLINE Vec<T> scaled_gradient(Vec<T> g, Vec<T> scale, Vec<T> clip) {
  g = g * scale;
  if constexpr (kClip) g = max(-clip, min(clip, g));
  return g;
}

// The elements of a span that an update takes and gives in one go.
template <class T, int kStates>
struct Elements {
  Vec<T> w, g, s[kStates ? kStates : 1];
};

// w, state <- update(w, g, state) over n elements; Update::kStates spans are read and written, no others are touched.
template <class T, class Update, bool kClip>
PBP_INLINE void sweep_clipped(const Update& update, double scale, double clip, T* w, const T* g, void* const* state,
                              int64_t n) {
  constexpr int kStates = Update::kStates;
  typedef Elements<T, kStates> E;
  T* s[kStates ? kStates : 1] = {};
  for (int k = 0; k < kStates; ++k) s[k] = static_cast<T*>(state[k]);
  const Vec<T> by = T(scale), limit = T(clip);
  const auto load = [&](int64_t i, auto... some) __attribute__((always_inline)) {
    E e;
    for (int k = 0; k < kStates; ++k) e.s[k] = Vec<T>::load(s[k] + i, some...);
    e.g = scaled_gradient<T, kClip>(Vec<T>::load(g + i, some...), by, limit);
    e.w = Vec<T>::load(w + i, some...);
    return e;
  };
  const auto store = [&](const E& e, int64_t i, auto... some) __attribute__((always_inline)) {
    e.w.store(w + i, some...);
    for (int k = 0; k < kStates; ++k) e.s[k].store(s[k] + i, some...);
  };
  int64_t i = 0;
  // Every third root by multiply-adds: then these and the divider are busy alike. A short span ends sooner without: its
  // last elements wait for the longer road.
  constexpr int64_t kLong = 8 * kLanes;
  if (kRootByFma<T> && kStates > 0 && n >= kLong)
    for (; i + 3 * kLanes <= n; i += 3 * kLanes) {
      E a = load(i), b = load(i + kLanes), c = load(i + 2 * kLanes);
      a.w = update(a.w, a.g, a.s, RootByFma());
      b.w = update(b.w, b.g, b.s, RootByDivider());
      c.w = update(c.w, c.g, c.s, RootByDivider());
      store(a, i);
      store(b, i + kLanes);
      store(c, i + 2 * kLanes);
    }
  for (; i + kLanes <= n; i += kLanes) {
    E a = load(i);
    a.w = update(a.w, a.g, a.s, RootByDivider());
    store(a, i);
  }
  if (const int64_t rest = n - i) {
    E a = load(i, rest);
    a.w = update(a.w, a.g, a.s, RootByDivider());
    store(a, i, rest);
  }
}

// `state` lists this variant's spans, Update::kStates of them.
template <class T, class Update>
PBP_INLINE void sweep(const RuleNumbers& numbers, double scale, double clip, void* w, const void* g, void* const* state,
                      const Extent& extent) {
  const Update update(numbers);
  T* weight = static_cast<T*>(w);
  const T* gradient = static_cast<const T*>(g);
  void* spans[kMaxOptimStates] = {};
  for (int k = 0; k < Update::kStates; ++k) spans[k] = state[k];
  for (int64_t r = 0; r < extent.rows; ++r) {
    if (clip < HUGE_VAL)
      sweep_clipped<T, Update, true>(update, scale, clip, weight, gradient, spans, extent.n);
    else
      sweep_clipped<T, Update, false>(update, scale, clip, weight, gradient, spans, extent.n);
    weight += extent.step;
    gradient += extent.step;
    for (int k = 0; k < Update::kStates; ++k) spans[k] = static_cast<T*>(spans[k]) + extent.step;
  }
}

template <class T>
double square_sum(const void* span, int64_t n) {
  return wide_sum<WideSquares>(static_cast<const T*>(span), n);
}

// 0 * x is 0 for a finite x and NaN for all others, and a sum with one NaN is NaN.
template <class T>
bool finite(const void* span, int64_t n) {
  constexpr int kChains = 4;
  const T* x = static_cast<const T*>(span);
  const Vec<T> zero = T(0);
  Vec<T> acc[kChains] = {T(0), T(0), T(0), T(0)};
  int64_t i = 0;
  for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) acc[c] = fma(Vec<T>::load(x + i + c * kLanes), zero, acc[c]);
  }
  for (; i + kLanes <= n; i += kLanes) acc[0] = fma(Vec<T>::load(x + i), zero, acc[0]);
  if (const int64_t rest = n - i) acc[1] = fma(Vec<T>::load(x + i, rest), zero, acc[1]);
  return sum((acc[0] + acc[1]) + (acc[2] + acc[3])) == T(0);
}

}  // namespace
}  // namespace pbp
