// One page of vectors. `Vec<T>` is 16 virtual lanes of float or double on every instruction set: elementwise code and
// reductions are written once on it, and a reduction's order is the same everywhere. Everything else (tails, loops,
// math) stands on these few primitives. Internal linkage only: see op.h.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#include "../core/op.h"

namespace pbp {
namespace {

#if defined(__AVX512F__)
constexpr int kVecBytes = 64;
#elif defined(__AVX2__)
constexpr int kVecBytes = 32;
#else
constexpr int kVecBytes = 16;
#endif

constexpr int kLanes = 16;

template <class T>
struct Native;  // the widest register of T, its integer twin for masks and bits, and an unaligned face for memory
template <>
struct Native<float> {
  typedef float V __attribute__((vector_size(kVecBytes)));
  typedef float U __attribute__((vector_size(kVecBytes), aligned(4), may_alias));
  typedef int32_t I __attribute__((vector_size(kVecBytes)));
  typedef int32_t Bits;
};
template <>
struct Native<double> {
  typedef double V __attribute__((vector_size(kVecBytes)));
  typedef double U __attribute__((vector_size(kVecBytes), aligned(8), may_alias));
  typedef int64_t I __attribute__((vector_size(kVecBytes)));
  typedef int64_t Bits;
};

// fma1: a * b + c, rounded once where the level has FMA. max1, min1: b when either is NaN, or when they are equal;
// spelt as `a > b ? a : b` each would cost a compare and a blend.
#if defined(__AVX512F__)
PBP_INLINE Native<float>::V fma1(Native<float>::V a, Native<float>::V b, Native<float>::V c) {
  return (Native<float>::V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
PBP_INLINE Native<double>::V fma1(Native<double>::V a, Native<double>::V b, Native<double>::V c) {
  return (Native<double>::V)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
PBP_INLINE Native<float>::V sqrt1(Native<float>::V a) {
  return (Native<float>::V)_mm512_maskz_sqrt_ps(0xffff, (__m512)a);
}
PBP_INLINE Native<double>::V sqrt1(Native<double>::V a) {
  return (Native<double>::V)_mm512_maskz_sqrt_pd(0xff, (__m512d)a);
}
PBP_INLINE Native<float>::V max1(Native<float>::V a, Native<float>::V b) {
  return (Native<float>::V)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
}
PBP_INLINE Native<double>::V max1(Native<double>::V a, Native<double>::V b) {
  return (Native<double>::V)_mm512_maskz_max_pd(0xff, (__m512d)a, (__m512d)b);
}
PBP_INLINE Native<float>::V min1(Native<float>::V a, Native<float>::V b) {
  return (Native<float>::V)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b);
}
PBP_INLINE Native<double>::V min1(Native<double>::V a, Native<double>::V b) {
  return (Native<double>::V)_mm512_maskz_min_pd(0xff, (__m512d)a, (__m512d)b);
}
#elif defined(__AVX2__)
PBP_INLINE Native<float>::V fma1(Native<float>::V a, Native<float>::V b, Native<float>::V c) {
  return (Native<float>::V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
PBP_INLINE Native<double>::V fma1(Native<double>::V a, Native<double>::V b, Native<double>::V c) {
  return (Native<double>::V)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
PBP_INLINE Native<float>::V sqrt1(Native<float>::V a) { return (Native<float>::V)_mm256_sqrt_ps((__m256)a); }
PBP_INLINE Native<double>::V sqrt1(Native<double>::V a) { return (Native<double>::V)_mm256_sqrt_pd((__m256d)a); }
PBP_INLINE Native<float>::V max1(Native<float>::V a, Native<float>::V b) {
  return (Native<float>::V)_mm256_max_ps((__m256)a, (__m256)b);
}
PBP_INLINE Native<double>::V max1(Native<double>::V a, Native<double>::V b) {
  return (Native<double>::V)_mm256_max_pd((__m256d)a, (__m256d)b);
}
PBP_INLINE Native<float>::V min1(Native<float>::V a, Native<float>::V b) {
  return (Native<float>::V)_mm256_min_ps((__m256)a, (__m256)b);
}
PBP_INLINE Native<double>::V min1(Native<double>::V a, Native<double>::V b) {
  return (Native<double>::V)_mm256_min_pd((__m256d)a, (__m256d)b);
}
#elif defined(__aarch64__)
PBP_INLINE Native<float>::V fma1(Native<float>::V a, Native<float>::V b, Native<float>::V c) {
  return (Native<float>::V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
PBP_INLINE Native<double>::V fma1(Native<double>::V a, Native<double>::V b, Native<double>::V c) {
  return (Native<double>::V)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
PBP_INLINE Native<float>::V sqrt1(Native<float>::V a) { return (Native<float>::V)vsqrtq_f32((float32x4_t)a); }
PBP_INLINE Native<double>::V sqrt1(Native<double>::V a) { return (Native<double>::V)vsqrtq_f64((float64x2_t)a); }
template <class V>
PBP_INLINE V max1(V a, V b) {
  return a > b ? a : b;
}
template <class V>
PBP_INLINE V min1(V a, V b) {
  return a < b ? a : b;
}
#else  // x86-64-v2 has no FMA: two roundings, stated in the README's bounds
PBP_INLINE Native<float>::V fma1(Native<float>::V a, Native<float>::V b, Native<float>::V c) { return a * b + c; }
PBP_INLINE Native<double>::V fma1(Native<double>::V a, Native<double>::V b, Native<double>::V c) { return a * b + c; }
PBP_INLINE Native<float>::V sqrt1(Native<float>::V a) { return (Native<float>::V)_mm_sqrt_ps((__m128)a); }
PBP_INLINE Native<double>::V sqrt1(Native<double>::V a) { return (Native<double>::V)_mm_sqrt_pd((__m128d)a); }
PBP_INLINE Native<float>::V max1(Native<float>::V a, Native<float>::V b) {
  return (Native<float>::V)_mm_max_ps((__m128)a, (__m128)b);
}
PBP_INLINE Native<double>::V max1(Native<double>::V a, Native<double>::V b) {
  return (Native<double>::V)_mm_max_pd((__m128d)a, (__m128d)b);
}
PBP_INLINE Native<float>::V min1(Native<float>::V a, Native<float>::V b) {
  return (Native<float>::V)_mm_min_ps((__m128)a, (__m128)b);
}
PBP_INLINE Native<double>::V min1(Native<double>::V a, Native<double>::V b) {
  return (Native<double>::V)_mm_min_pd((__m128d)a, (__m128d)b);
}
#endif

// Part of a native: its lanes are numbered from `first`, those below n < 16 are in memory at p.
#if defined(__AVX512F__)
PBP_INLINE uint32_t lanes_below(int64_t n, int first) { return _bzhi_u32(0xffff, uint32_t(n)) >> first; }
PBP_INLINE Native<float>::V load_some(const float* p, int64_t n, int first, Native<float>::V rest) {
  return (Native<float>::V)_mm512_mask_loadu_ps((__m512)rest, __mmask16(lanes_below(n, first)), p);
}
PBP_INLINE Native<double>::V load_some(const double* p, int64_t n, int first, Native<double>::V rest) {
  return (Native<double>::V)_mm512_mask_loadu_pd((__m512d)rest, __mmask8(lanes_below(n, first)), p);
}
PBP_INLINE void store_some(float* p, int64_t n, int first, Native<float>::V v) {
  _mm512_mask_storeu_ps(p, __mmask16(lanes_below(n, first)), (__m512)v);
}
PBP_INLINE void store_some(double* p, int64_t n, int first, Native<double>::V v) {
  _mm512_mask_storeu_pd(p, __mmask8(lanes_below(n, first)), (__m512d)v);
}
#elif defined(__AVX2__)
constexpr int32_t kBelow[2 * kLanes] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
PBP_INLINE Native<float>::V load_some(const float* p, int64_t n, int first, Native<float>::V rest) {
  const __m256i m = _mm256_loadu_si256((const __m256i*)(kBelow + kLanes - n + first));
  return (Native<float>::V)_mm256_blendv_ps((__m256)rest, _mm256_maskload_ps(p, m), _mm256_castsi256_ps(m));
}
PBP_INLINE Native<double>::V load_some(const double* p, int64_t n, int first, Native<double>::V rest) {
  const __m256i m = _mm256_cvtepi32_epi64(_mm_loadu_si128((const __m128i*)(kBelow + kLanes - n + first)));
  return (Native<double>::V)_mm256_blendv_pd((__m256d)rest, _mm256_maskload_pd(p, m), _mm256_castsi256_pd(m));
}
#endif
// n < 16 numbers in pieces of fixed size: a memcpy of unknown size is a call.
template <class T>
PBP_INLINE void copy_some(T* to, const T* from, int64_t n) {
  int64_t i = 0;
  if (n & 8) memcpy(to, from, 8 * sizeof(T)), i = 8;
  if (n & 4) memcpy(to + i, from + i, 4 * sizeof(T)), i += 4;
  if (n & 2) memcpy(to + i, from + i, 2 * sizeof(T)), i += 2;
  if (n & 1) to[i] = from[i];
}

// Lanes of truth: all bits set or clear in each lane.
template <class T>
struct Mask {
  static constexpr int N = kLanes * int(sizeof(T)) / kVecBytes;
  typename Native<T>::I v[N];
};

// Loops over the natives are always unrolled: an array that is not keeps its registers on the stack.
#define PBP_EACH _Pragma("GCC unroll 8") for (int i = 0; i < N; ++i)

template <class T>
struct Vec {
  static constexpr int N = kLanes * int(sizeof(T)) / kVecBytes;  // natives
  static constexpr int L = kVecBytes / int(sizeof(T));           // lanes of a native
  typedef typename Native<T>::V V;
  typedef typename Native<T>::I I;
  V v[N];

  PBP_INLINE Vec() {}
  PBP_INLINE Vec(T s) { PBP_EACH v[i] = s - V{}; }  // s + V{} would lose the sign of -0.0, and costs an addition

  static PBP_INLINE Vec load(const T* p) {
    Vec r;
    PBP_EACH r.v[i] = *(const typename Native<T>::U*)(p + i * L);
    return r;
  }
  PBP_INLINE void store(T* p) const { PBP_EACH*(typename Native<T>::U*)(p + i * L) = v[i]; }
  // The first n < 16 lanes; the others are zero (or those of `rest`). Never touches memory beyond n.
  static PBP_INLINE Vec load(const T* p, int64_t n) { return load(p, n, Vec(T(0))); }
  static PBP_INLINE Vec load(const T* p, int64_t n, Vec rest) {
#if defined(__AVX2__)
    PBP_EACH rest.v[i] = load_some(p + i * L, n, i * L, rest.v[i]);
    return rest;
#else
    alignas(64) T b[kLanes];
    rest.store(b);
    copy_some(b, p, n);
    return load(b);
#endif
  }
  PBP_INLINE void store(T* p, int64_t n) const {
#if defined(__AVX512F__)
    PBP_EACH store_some(p + i * L, n, i * L, v[i]);
#else  // the masked stores of AVX2 are slow on many machines
    alignas(64) T b[kLanes];
    store(b);
    copy_some(p, b, n);
#endif
  }

  friend PBP_INLINE Vec operator+(Vec a, Vec b) {
    Vec r;
    PBP_EACH r.v[i] = a.v[i] + b.v[i];
    return r;
  }
  friend PBP_INLINE Vec operator-(Vec a, Vec b) {
    Vec r;
    PBP_EACH r.v[i] = a.v[i] - b.v[i];
    return r;
  }
  friend PBP_INLINE Vec operator*(Vec a, Vec b) {
    Vec r;
    PBP_EACH r.v[i] = a.v[i] * b.v[i];
    return r;
  }
  friend PBP_INLINE Vec operator/(Vec a, Vec b) {
    Vec r;
    PBP_EACH r.v[i] = a.v[i] / b.v[i];
    return r;
  }
  friend PBP_INLINE Vec operator-(Vec a) {
    Vec r;
    PBP_EACH r.v[i] = -a.v[i];
    return r;
  }
  friend PBP_INLINE Mask<T> operator<(Vec a, Vec b) {
    Mask<T> r;
    PBP_EACH r.v[i] = a.v[i] < b.v[i];
    return r;
  }
  friend PBP_INLINE Mask<T> operator>(Vec a, Vec b) {
    Mask<T> r;
    PBP_EACH r.v[i] = a.v[i] > b.v[i];
    return r;
  }
  friend PBP_INLINE Mask<T> operator<=(Vec a, Vec b) {
    Mask<T> r;
    PBP_EACH r.v[i] = a.v[i] <= b.v[i];
    return r;
  }
  friend PBP_INLINE Mask<T> operator>=(Vec a, Vec b) {
    Mask<T> r;
    PBP_EACH r.v[i] = a.v[i] >= b.v[i];
    return r;
  }
  friend PBP_INLINE Mask<T> operator==(Vec a, Vec b) {
    Mask<T> r;
    PBP_EACH r.v[i] = a.v[i] == b.v[i];
    return r;
  }
  friend PBP_INLINE Mask<T> operator!=(Vec a, Vec b) {
    Mask<T> r;
    PBP_EACH r.v[i] = a.v[i] != b.v[i];
    return r;
  }
};

template <class T>
PBP_INLINE Mask<T> operator&(Mask<T> a, Mask<T> b) {
  constexpr int N = Mask<T>::N;
  Mask<T> r;
  PBP_EACH r.v[i] = a.v[i] & b.v[i];
  return r;
}
template <class T>
PBP_INLINE Mask<T> operator|(Mask<T> a, Mask<T> b) {
  constexpr int N = Mask<T>::N;
  Mask<T> r;
  PBP_EACH r.v[i] = a.v[i] | b.v[i];
  return r;
}
template <class T>
PBP_INLINE Mask<T> operator~(Mask<T> a) {
  constexpr int N = Mask<T>::N;
  Mask<T> r;
  PBP_EACH r.v[i] = ~a.v[i];
  return r;
}

template <class T>
PBP_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
  constexpr int N = Vec<T>::N;
  Vec<T> r;
  PBP_EACH r.v[i] = fma1(a.v[i], b.v[i], c.v[i]);
  return r;
}
template <class T>
PBP_INLINE Vec<T> sqrt(Vec<T> a) {
  constexpr int N = Vec<T>::N;
  Vec<T> r;
  PBP_EACH r.v[i] = sqrt1(a.v[i]);
  return r;
}
// m ? a : b, lane by lane.
template <class T>
PBP_INLINE Vec<T> select(Mask<T> m, Vec<T> a, Vec<T> b) {
  constexpr int N = Vec<T>::N;
  Vec<T> r;
  PBP_EACH r.v[i] = m.v[i] ? a.v[i] : b.v[i];
  return r;
}
// The second operand wins when either is NaN; write the value that must propagate last. nan_max/nan_min propagate both.
template <class T>
PBP_INLINE Vec<T> max(Vec<T> a, Vec<T> b) {
  constexpr int N = Vec<T>::N;
  Vec<T> r;
  PBP_EACH r.v[i] = max1(a.v[i], b.v[i]);
  return r;
}
template <class T>
PBP_INLINE Vec<T> min(Vec<T> a, Vec<T> b) {
  constexpr int N = Vec<T>::N;
  Vec<T> r;
  PBP_EACH r.v[i] = min1(a.v[i], b.v[i]);
  return r;
}
template <class T>
PBP_INLINE Vec<T> nan_max(Vec<T> a, Vec<T> b) {
  return select((a > b) | (a != a), a, b);
}
template <class T>
PBP_INLINE Vec<T> nan_min(Vec<T> a, Vec<T> b) {
  return select((a < b) | (a != a), a, b);
}

// True in the first n of the 16 lanes.
template <class T>
PBP_INLINE Mask<T> first_lanes(int64_t n) {
  constexpr T lane[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return Vec<T>::load(lane) < Vec<T>(T(n));
}

// Bits: the sign lives in the top one.
template <class T>
PBP_INLINE Vec<T> abs(Vec<T> a) {
  constexpr int N = Vec<T>::N;
  typedef typename Native<T>::I I;
  typedef typename Native<T>::Bits B;
  constexpr B keep = B(~(B(1) << (sizeof(T) * 8 - 1)));
  Vec<T> r;
  PBP_EACH r.v[i] = (typename Native<T>::V)((I)a.v[i] & keep);
  return r;
}

// 16 lanes to one number by a fixed tree: halves of 8, 4, 2, 1 - the same order on every instruction set.
template <class T>
PBP_INLINE T sum(Vec<T> a) {
  alignas(64) T b[kLanes];
  a.store(b);
  for (int w = kLanes / 2; w; w /= 2)
    for (int i = 0; i < w; ++i) b[i] = b[i] + b[i + w];
  return b[0];
}
template <class T>
PBP_INLINE T max_of(Vec<T> a) {  // NaN propagates
  alignas(64) T b[kLanes];
  a.store(b);
  T m = b[0];
  for (int i = 1; i < kLanes; ++i) m = (b[i] > m || b[i] != b[i]) && m == m ? b[i] : m;
  return m;
}

}  // namespace
}  // namespace pbp
