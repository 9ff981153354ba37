// The one loop of every update rule, and the sum of squares that clipping by norm needs. A rule is an `Update<T>`:
// 16 elements of weight, gradient and state in, 16 new ones out. The last n % 16 elements take the same road on a
// padded vector, so a result never depends on where a span was cut.
#pragma once
#include <math.h>

#include "../core/optim.h"
#include "../kernels/wide.h"

namespace pbp {
namespace {

// g * scale, then clamped to [-clip, clip]. NaN stays NaN: it must reach the weights, where it is seen.
template <class T, bool kClip>
PBP_INLINE Vec<T> scaled_gradient(Vec<T> g, Vec<T> scale, Vec<T> clip) {
  g = g * scale;
  if constexpr (kClip) g = max(-clip, min(clip, g));
  return g;
}

// w, state <- update(w, g, state) over n elements; Update::kStates spans are read and written, no others are touched.
template <class T, class Update, bool kClip>
PBP_INLINE void sweep_clipped(const Update& update, double scale, double clip, T* w, const T* g, void* const* state,
                              int64_t n) {
  constexpr int kStates = Update::kStates;
  T* s[kStates ? kStates : 1] = {};
  for (int k = 0; k < kStates; ++k) s[k] = static_cast<T*>(state[k]);
  const Vec<T> by = T(scale), limit = T(clip);
  Vec<T> v[kStates ? kStates : 1];
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < kStates; ++k) v[k] = Vec<T>::load(s[k] + i);
    const Vec<T> d = scaled_gradient<T, kClip>(Vec<T>::load(g + i), by, limit);
    update(Vec<T>::load(w + i), d, v).store(w + i);
    for (int k = 0; k < kStates; ++k) v[k].store(s[k] + i);
  }
  if (const int64_t rest = n - i) {
    for (int k = 0; k < kStates; ++k) v[k] = Vec<T>::load(s[k] + i, rest);
    const Vec<T> d = scaled_gradient<T, kClip>(Vec<T>::load(g + i, rest), by, limit);
    update(Vec<T>::load(w + i, rest), d, v).store(w + i, rest);
    for (int k = 0; k < kStates; ++k) v[k].store(s[k] + i, rest);
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

}  // namespace
}  // namespace pbp
