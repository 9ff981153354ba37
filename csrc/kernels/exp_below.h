// e^x for x <= 0, the exponential of a softmax: about half the work of math.h's exp, which must also serve x > 0 and
// denormal results. Largest error with AVX2 or better, in ULP: 2.1 for x > -5, 2.7 for x > -20, 5.6 for x > -87.33;
// from there on the result fades to 0, which it reaches at -88.03. exp_below(0) is 1, of -infinity 0, of NaN NaN.
// Double, and other levels: math.h's exp.
#pragma once
#include "math.h"

namespace pbp {
namespace {

#if defined(__AVX2__)
// 2^(j/8), less what bits j << 20 would add to it. Twice, for registers of 16 lanes.
constexpr int32_t kEighths[16] = {0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7, 0x3f7504f3, 0x3f75672a,
                                  0x3f7744fd, 0x3f7ac0c7, 0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7,
                                  0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};
#if defined(__AVX512F__)
PBP_INLINE Ints eighths(Ints k) {
  return (Ints)_mm512_maskz_permutexvar_epi32(0xffff, (__m512i)k, _mm512_loadu_si512(kEighths));
}
#else
PBP_INLINE Ints eighths(Ints k) {
  return (Ints)_mm256_permutevar8x32_epi32(_mm256_loadu_si256((const __m256i*)kEighths), (__m256i)k);
}
#endif
// x = k ln2/8 + r; e^x = 2^(k >> 3) * 2^((k & 7)/8) * e^r. One part of ln2/8 will do: its error counts k times, but
// where k is large the result is small beside the row's maximum.
PBP_INLINE Floats exp_below(Floats x) {
  x = max1(all(-88.0296919f), x);  // where k = -127 * 8: a power of two with all bits clear
  const Floats magic = all(12582912.f);
  const Floats t = fma1(x, all(11.5415603f), magic);  // its low bits hold k
  const Floats r = fma1(t - magic, all(-0.0866433978f), x);
  const Floats p = poly(r, all(0.16666858f), 0.50006454f, 1.f, 1.f);
  const Ints k = (Ints)t;
  return p * (Floats)(eighths(k) + (k << 20));
}
#else
PBP_INLINE Floats exp_below(Floats x) { return exp(x); }
#endif

PBP_INLINE Vec<float> exp_below(Vec<float> x) {
  constexpr int N = Vec<float>::N;
  PBP_EACH x.v[i] = exp_below(x.v[i]);
  return x;
}
PBP_INLINE Vec<double> exp_below(Vec<double> x) { return exp(x); }

}  // namespace
}  // namespace pbp
