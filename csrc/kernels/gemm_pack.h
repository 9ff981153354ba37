// Moving tiles: panels of B copied or transposed next to each other, and finished tiles merged into C's edges or its
// transpose. Memory beyond the logical elements is never touched.
#pragma once
#include "gemm_tile.h"

namespace pbp {
namespace {

// The first n lanes of a native vector at p; the others read as zero and are not written.
template <class T>
PBP_INLINE typename Native<T>::V load_part(const T* p, int64_t n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (typename Native<T>::V)_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p);
  else
    return (typename Native<T>::V)_mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p);
#else
  alignas(64) T lanes[kNativeLanes<T>] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return *(const typename Native<T>::V*)lanes;
#endif
}
template <class T>
PBP_INLINE void store_part(T* p, int64_t n, typename Native<T>::V v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), (__m512)v);
  else
    _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), (__m512d)v);
#else
  alignas(64) T lanes[kNativeLanes<T>];
  *(typename Native<T>::V*)lanes = v;
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
#endif
}

// a0 b0 a1 b1 ... from the lower (upper) halves of a and b.
template <int L, class V>
PBP_INLINE V zip_low(V a, V b) {
  if constexpr (L == 2) return __builtin_shufflevector(a, b, 0, 2);
  if constexpr (L == 4) return __builtin_shufflevector(a, b, 0, 4, 1, 5);
  if constexpr (L == 8) return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  if constexpr (L == 16) return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
template <int L, class V>
PBP_INLINE V zip_high(V a, V b) {
  if constexpr (L == 2) return __builtin_shufflevector(a, b, 1, 3);
  if constexpr (L == 4) return __builtin_shufflevector(a, b, 2, 6, 3, 7);
  if constexpr (L == 8) return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  if constexpr (L == 16)
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

// An L x L block of natives transposed in registers: log2(L) rounds, each zipping row i with row i + L/2.
template <class T>
PBP_INLINE void transpose_native(typename Native<T>::V* r) {
  constexpr int L = kNativeLanes<T>;
  typename Native<T>::V t[L];
#pragma GCC unroll 4
  for (int round = 1; round < L; round *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < L / 2; ++i) {
      t[2 * i] = zip_low<L>(r[i], r[i + L / 2]);
      t[2 * i + 1] = zip_high<L>(r[i], r[i + L / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) r[i] = t[i];
  }
}

// to[k][i] = from[i * step + k] for L columns i and k < n.
template <class T>
void pack_transposed_block(int64_t n, const T* from, int64_t step, T* to, int64_t width) {
  typedef typename Native<T>::V V;
  typedef typename Native<T>::U U;
  constexpr int L = kNativeLanes<T>;
  V r[L];
  int64_t k = 0;
  for (; k + L <= n; k += L) {
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) r[i] = *(const U*)(from + i * step + k);
    transpose_native<T>(r);
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) *(U*)(to + (k + i) * width) = r[i];
  }
  for (; k < n; ++k)
    for (int i = 0; i < L; ++i) to[k * width + i] = from[i * step + k];
}

// A panel of an operand: to[k][j] = from[k * row + j * col] for k < n and j < w, zero for w <= j < width. `width` is
// a multiple of the native vector.
template <class T>
void pack_panel(int64_t n, int64_t w, int64_t width, const T* from, int64_t row, int64_t col, T* to) {
  typedef typename Native<T>::U U;
  constexpr int64_t L = kNativeLanes<T>;
  for (int64_t j = 0; j < width; j += L) {
    const T* s = from + j * col;
    T* d = to + j;
    const int64_t have = w - j < L ? w - j : L;
    if (col == 1) {
      if (have == L)
        for (int64_t k = 0; k < n; ++k) *(U*)(d + k * width) = *(const U*)(s + k * row);
      else
        for (int64_t k = 0; k < n; ++k) *(U*)(d + k * width) = load_part(s + k * row, have);
    } else if (row == 1 && have == L) {
      pack_transposed_block(n, s, col, d, width);
    } else {
      for (int64_t k = 0; k < n; ++k)
        for (int64_t i = 0; i < L; ++i) d[k * width + i] = i < have ? s[k * row + i * col] : T(0);
    }
  }
}

template <class T>
PBP_INLINE const T* bias_at(const T* bias, int64_t j) {
  return bias ? bias + j : nullptr;
}

// One native vector (or its first n lanes) into C.
template <class T>
PBP_INLINE void merge_part(T* c, int64_t n, typename Native<T>::V v, Out out, const T* bias) {
  if (out == Out::kBias) v = v + load_part(bias, n);
  if (out == Out::kAdd) v = load_part(c, n) + v;
  store_part(c, n, v);
}
template <class T>
PBP_INLINE void merge_full(T* c, typename Native<T>::V v, Out out, const T* bias) {
  typedef typename Native<T>::U U;
  if (out == Out::kBias) v = v + *(const U*)bias;
  if (out == Out::kAdd) v = *(const U*)c + v;
  *(U*)c = v;
}

// C[rows x w] from a finished tile with `width` columns.
template <class T>
void merge_edge(int64_t rows, int64_t w, const T* tile, int64_t width, T* c, int64_t ldc, Out out, const T* bias) {
  typedef typename Native<T>::U U;
  constexpr int64_t L = kNativeLanes<T>;
  for (int64_t i = 0; i < rows; ++i, tile += width, c += ldc) {
    int64_t j = 0;
    for (; j + L <= w; j += L) merge_full<T>(c + j, *(const U*)(tile + j), out, bias_at(bias, j));
    if (j < w) merge_part<T>(c + j, w - j, *(const U*)(tile + j), out, bias_at(bias, j));
  }
}

// C[cols x rows] from the transpose of a finished block: element (j, i) of C is block[i][j]. The block's rows are
// readable up to the next multiple of a native vector.
template <class T>
void merge_transposed(int64_t rows, int64_t cols, const T* block, int64_t width, T* c, int64_t ldc, Out out,
                      const T* bias) {
  typedef typename Native<T>::V V;
  typedef typename Native<T>::U U;
  constexpr int64_t L = kNativeLanes<T>;
  V r[L];
  for (int64_t i = 0; i < rows; i += L)
    for (int64_t j = 0; j < cols; j += L) {
#pragma GCC unroll 16
      for (int q = 0; q < L; ++q) r[q] = *(const U*)(block + (i + q) * width + j);
      transpose_native<T>(r);
      T* to = c + j * ldc + i;
      const int64_t lanes = rows - i, last = cols - j;
      if (lanes >= L && last >= L) {
#pragma GCC unroll 16
        for (int q = 0; q < L; ++q) merge_full<T>(to + q * ldc, r[q], out, bias_at(bias, i));
      } else {
#pragma GCC unroll 16
        for (int q = 0; q < L; ++q)
          if (q < last) merge_part<T>(to + q * ldc, lanes < L ? lanes : L, r[q], out, bias_at(bias, i));
      }
    }
}

}  // namespace
}  // namespace pbp
