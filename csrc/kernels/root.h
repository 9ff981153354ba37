// The square root of a Vec by two roads that give the same bits: the unit that also divides, or multiply-adds. Zen 4
// takes 10 cycles for 16 roots, 6 for 16 quotients, on that one unit; a loop of both is fastest when some of its roots
// go round.
#pragma once
#include "vec.h"

namespace pbp {
namespace {

// Whether the second road exists.
template <class T>
constexpr bool kRootByFma = kVecBytes == 64 && sizeof(T) == sizeof(float);

struct RootByDivider {
  template <class T>
  static PBP_INLINE Vec<T> of(Vec<T> a) {
    return sqrt(a);
  }
};

// From an estimate good to 14 bits: g to sqrt(a) and h to 1 / (2 sqrt(a)), both to almost all bits, then g is corrected
// by the exact remainder a - g * g. That is the correctly rounded root of every float in [2^-100, 2^126), tried on all
// of them; and, over two octaves, with estimates off by 2^-14 either way: whose estimate it is does not matter. Zero
// gives zero.
struct RootByFma {
  template <class T>
  static PBP_INLINE Vec<T> of(Vec<T> a) {
    return sqrt(a);
  }
#if defined(__AVX512F__)
  static PBP_INLINE Vec<float> of(Vec<float> a) {
    constexpr uint32_t kLowest = (127 - 100) << 23, kBeyond = (127 + 126) << 23;  // bits of 2^-100 and 2^126
    constexpr uint32_t kTimes4 = 2 << 23;
    const __m512i bits = (__m512i)a.v[0];
    const __mmask16 unusual = _mm512_cmpge_epu32_mask(_mm512_sub_epi32(bits, _mm512_set1_epi32(kLowest)),
                                                      _mm512_set1_epi32(kBeyond - kLowest));
    if (__builtin_expect(_mm512_mask_test_epi32_mask(unusual, bits, bits), 0)) return sqrt(a);
    Vec<float> h;
    h.v[0] =
        (Native<float>::V)_mm512_maskz_rsqrt14_ps(0xffff, (__m512)_mm512_add_epi32(bits, _mm512_set1_epi32(kTimes4)));
    const Vec<float> half(0.5f);
    Vec<float> g = (a + a) * h;
    const Vec<float> r = fma(-g, h, half);
    g = fma(g, r, g);
    h = fma(h, r, h);
    return fma(fma(-g, g, a), h, g);
  }
#endif
};

}  // namespace
}  // namespace pbp
