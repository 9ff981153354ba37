// Sums in double over float or double spans, in an order that follows from the length alone.
#pragma once
#include "vec.h"

namespace pbp {
namespace {

// 16 numbers as doubles. The loop has a fixed length and becomes a conversion of whole registers.
PBP_INLINE Vec<double> load_wide(const double* p) { return Vec<double>::load(p); }
PBP_INLINE Vec<double> load_wide(const float* p) {
  alignas(64) double d[kLanes];
  for (int i = 0; i < kLanes; ++i) d[i] = p[i];
  return Vec<double>::load(d);
}

// The square of a float is exact in double: a float span gives the same bits with and without FMA.
struct WideSquares {
  static PBP_INLINE Vec<double> add(Vec<double> a, Vec<double> x) { return fma(x, x, a); }
};
struct WideTerms {
  static PBP_INLINE Vec<double> add(Vec<double> a, Vec<double> x) { return a + x; }
};

// `sum` of vec.h, the same tree, in registers.
PBP_INLINE double tree_sum(Vec<double> a) {
#if defined(__AVX2__)
#if defined(__AVX512F__)
  const Native<double>::V eight = a.v[0] + a.v[1];
  const auto four =
      __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
#else
  const Native<double>::V four = (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]);
#endif
  const auto two = __builtin_shufflevector(four, four, 0, 1) + __builtin_shufflevector(four, four, 2, 3);
  return two[0] + two[1];
#else
  return sum(a);
#endif
}

// Four accumulators of 16 lanes each, then a fixed tree.
template <class Terms, class T>
double wide_sum(const T* p, int64_t n) {
  constexpr int kChains = 4;
  Vec<double> acc[kChains] = {0.0, 0.0, 0.0, 0.0};
  int64_t i = 0;
  for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) acc[c] = Terms::add(acc[c], load_wide(p + i + c * kLanes));
  }
  for (; i + kLanes <= n; i += kLanes) acc[0] = Terms::add(acc[0], load_wide(p + i));
  if (const int64_t rest = n - i) {
    alignas(64) T padded[kLanes];
    Vec<T>::load(p + i, rest).store(padded);
    acc[1] = Terms::add(acc[1], load_wide(padded));
  }
  return tree_sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

}  // namespace
}  // namespace pbp
