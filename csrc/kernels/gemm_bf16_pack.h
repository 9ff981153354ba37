// Float operands rounded to bfloat16 and laid out in pairs along k. Rounding is to nearest even; NaN stays NaN,
// infinities stay, numbers beyond bfloat16's largest become infinite, subnormal ones zero. An odd k ends in a pair
// whose second number is zero. Memory beyond the logical elements is never touched.
#pragma once
#include "gemm_bf16_tile.h"

#if defined(__AVX512F__)
namespace pbp {
namespace {

// `low` and `high` rounded, each in its half of a word.
PBP_BF16 PBP_INLINE __m512i zip_pairs(__m512 low, __m512 high) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_maskz_permutexvar_epi16(~0u, order, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

constexpr int64_t kRowsAtOnce = 16;

PBP_INLINE __m512 load_lanes(const float* p, int64_t n) {
  return _mm512_maskz_loadu_ps(__mmask16(_bzhi_u32(0xffff, n < 0 ? 0 : uint32_t(n))), p);
}

// Rows of A, contiguous along k, as rows of pairs: word (i, q) at to[i * ld + q]. Whole vectors of `to` are written.
PBP_BF16 void pack_pair_rows(int64_t m, int64_t k, const float* from, int64_t row, Pair* to, int64_t ld) {
  for (int64_t i = 0; i < m; ++i, from += row, to += ld) {
    int64_t j = 0;
    for (; j + 2 * kPairLanes <= k; j += 2 * kPairLanes)
      _mm512_storeu_si512(
          to + j / 2, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + j + kPairLanes), _mm512_loadu_ps(from + j)));
    if (j < k)
      _mm512_storeu_si512(to + j / 2,
                          (__m512i)_mm512_cvtne2ps_pbh(load_lanes(from + j + kPairLanes, k - j - kPairLanes),
                                                       load_lanes(from + j, k - j)));
  }
}

// Spelt with masks of ones: for the plain forms GCC 12 warns of a variable of its own.
// 4 rows of 4 words in each quarter, transposed quarter by quarter.
PBP_INLINE void transpose_quarters(__m512i* r) {
  const __m512i a = _mm512_maskz_unpacklo_epi32(0xffff, r[0], r[1]),
                b = _mm512_maskz_unpackhi_epi32(0xffff, r[0], r[1]);
  const __m512i c = _mm512_maskz_unpacklo_epi32(0xffff, r[2], r[3]),
                d = _mm512_maskz_unpackhi_epi32(0xffff, r[2], r[3]);
  r[0] = _mm512_maskz_unpacklo_epi64(0xff, a, c);
  r[1] = _mm512_maskz_unpackhi_epi64(0xff, a, c);
  r[2] = _mm512_maskz_unpacklo_epi64(0xff, b, d);
  r[3] = _mm512_maskz_unpackhi_epi64(0xff, b, d);
}

PBP_INLINE __m512 two_rows(const float* low, const float* high) {
  return (__m512)_mm512_maskz_insertf64x4(0xff, (__m512d)_mm512_castps256_ps512(_mm256_loadu_ps(low)),
                                          (__m256d)_mm256_loadu_ps(high), 1);
}

// 16 columns contiguous along k, `step` apart: to[q * width + i]. Loads put the rows i, i + 4, i + 8, i + 12 into the
// quarters of one register, which leaves two rounds of shuffles of the four that a transpose takes. A cache line of a
// column is read at once, four columns at a time: columns 4096 bytes apart would push each other out.
PBP_BF16 void pack_pairs_turned(int64_t k, const float* from, int64_t step, Pair* to, int64_t width) {
  int64_t j = 0;
  for (; j + 16 <= k; j += 16) {
    __m512i r[2][4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float* const s = from + i * step + j;
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half)
        r[half][i] = (__m512i)_mm512_cvtne2ps_pbh(two_rows(s + 8 * step + 8 * half, s + 12 * step + 8 * half),
                                                  two_rows(s + 8 * half, s + 4 * step + 8 * half));
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      transpose_quarters(r[half]);
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) _mm512_storeu_si512(to + (j / 2 + 4 * half + q) * width, r[half][q]);
    }
  }
  for (; j < k; j += 2) {
    alignas(64) float low[kPairLanes], high[kPairLanes];
    for (int i = 0; i < kPairLanes; ++i) {
      low[i] = from[i * step + j];
      high[i] = j + 1 < k ? from[i * step + j + 1] : 0.f;
    }
    _mm512_storeu_si512(to + j / 2 * width, zip_pairs(_mm512_load_ps(low), _mm512_load_ps(high)));
  }
}

// One vector of columns with any strides; columns from w on are zero.
PBP_BF16 void pack_pairs_scattered(int64_t k, int64_t w, const float* from, int64_t row, int64_t col, Pair* to,
                                   int64_t width) {
  for (int64_t j = 0; j < k; j += 2, to += width) {
    alignas(64) float low[kPairLanes] = {}, high[kPairLanes] = {};
    for (int64_t i = 0; i < w; ++i) {
      low[i] = from[j * row + i * col];
      if (j + 1 < k) high[i] = from[(j + 1) * row + i * col];
    }
    _mm512_storeu_si512(to, zip_pairs(_mm512_load_ps(low), _mm512_load_ps(high)));
  }
}

// Contiguous columns: panels lie `panel` words apart, the last is `last` wide. A few rows at a time are read from end
// to end, so that each is a stream the processor can foresee: panel after panel would leave a row, and its page, at
// once.
PBP_BF16 void pack_pairs_straight(int64_t k, int64_t w, const float* from, int64_t row, Pair* to, int64_t panel,
                                  int64_t last) {
  const int64_t first_of_last = (w - 1) / kPanel * kPanel;
  for (int64_t j0 = 0; j0 < k; j0 += kRowsAtOnce)
    for (int64_t i = 0; i < w; i += kPairLanes) {
      const int64_t width = i < first_of_last ? kPanel : last;
      const __mmask16 lanes = __mmask16(_bzhi_u32(0xffff, uint32_t(w - i < kPairLanes ? w - i : kPairLanes)));
      const float* s = from + j0 * row + i;
      Pair* d = to + i / kPanel * panel + i % kPanel + j0 / 2 * width;
      const int64_t end = k - j0 < kRowsAtOnce ? k - j0 : kRowsAtOnce;
      int64_t j = 0;
      for (; j + 2 <= end; j += 2, s += 2 * row, d += width)
        _mm512_storeu_si512(d, zip_pairs(_mm512_maskz_loadu_ps(lanes, s), _mm512_maskz_loadu_ps(lanes, s + row)));
      if (j < end) _mm512_storeu_si512(d, zip_pairs(_mm512_maskz_loadu_ps(lanes, s), _mm512_setzero_ps()));
    }
}

}  // namespace
}  // namespace pbp
#endif
