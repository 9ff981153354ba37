// The micro-kernel of half-width products: the register tile of gemm_tile.h with two bfloat16 factors where that has
// one float. Two neighbours along k share a word, and one instruction adds both of their products to a float32 sum, so
// the tile does twice the work of the float one at the same pace.
//
// The instruction (vdpbf16ps) multiplies exactly, adds the two products of a word one after the other, rounds to
// nearest even whatever the processor's mode, and reads and writes subnormal numbers as zero. Each element of the tile
// is one chain of these over k, in order, started from zero: the same bits whatever the tile's shape.
//
// Only the AVX-512 level has it, and not every CPU of that level: functions that use it carry PBP_BF16 and are reached
// only through nodes for which Infer::bf16() was true.
#pragma once
#include "gemm_tile.h"

namespace pbp {
namespace {

typedef uint32_t Pair;  // two bfloat16 numbers that follow each other along k, the first in the lower half

#if defined(__AVX512F__)
#define PBP_BF16 __attribute__((target("avx512bf16")))

constexpr int64_t kPairLanes = 16;  // pairs, and float sums, of a vector
constexpr int64_t kPanel = 32;      // columns of a full panel: two vectors, so that 14 rows fill the register file
constexpr int kPairTileRows = 14;

// C[MR x w] = A[MR x pairs] * B[pairs x NV * 16], then `out`; the last of the NV vectors is written as far as w goes.
// A's word (i, q) lies at a[i * a_row + q * a_step], row q of B at b + q * b_step. With every row one more line of
// `ahead` is fetched, `ahead_step` words apart.
template <int MR, int NV>
PBP_BF16 __attribute__((noinline)) void pair_tile(int64_t pairs, const Pair* __restrict a, int64_t a_row,
                                                  int64_t a_step, const Pair* __restrict b, int64_t b_step,
                                                  float* __restrict c, int64_t ldc, int64_t w, Out out,
                                                  const float* bias, const Pair* ahead, int64_t ahead_step) {
  __m512 acc[MR][NV];
#pragma GCC unroll 32
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) acc[i][j] = _mm512_setzero_ps();
  // Four rows a pointer: with one index for each of 14 rows GCC runs out of integer registers. The empty asm keeps it
  // from merging the pointers again.
  constexpr int G = (MR + 3) / 4;
  const Pair* at[G];
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) {
    at[g] = a + 4 * g * a_row;
    asm("" : "+r"(at[g]));
  }
  for (; pairs > 0; --pairs, b += b_step, ahead += ahead_step) {
    __builtin_prefetch(ahead, 0, 2);
    __m512i row[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) row[j] = _mm512_loadu_si512(b + j * kPairLanes);
#pragma GCC unroll 32
    for (int i = 0; i < MR; ++i) {
      const __m512i x = _mm512_set1_epi32(int(at[i / 4][i % 4 * a_row]));
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] = _mm512_dpbf16_ps(acc[i][j], (__m512bh)x, (__m512bh)row[j]);
    }
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) at[g] += a_step;
  }
  __mmask16 mask[NV];
#pragma GCC unroll 8
  for (int j = 0; j < NV; ++j)
    mask[j] = j < NV - 1 ? 0xffff : __mmask16(_bzhi_u32(0xffff, uint32_t(w - j * kPairLanes)));
  if (out == Out::kBias) {
    __m512 row[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) row[j] = _mm512_maskz_loadu_ps(mask[j], bias + j * kPairLanes);
#pragma GCC unroll 32
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] = acc[i][j] + row[j];
  } else if (out == Out::kAdd) {
#pragma GCC unroll 32
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] = _mm512_maskz_loadu_ps(mask[j], c + i * ldc + j * kPairLanes) + acc[i][j];
  }
#pragma GCC unroll 32
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) _mm512_mask_storeu_ps(c + i * ldc + j * kPairLanes, mask[j], acc[i][j]);
}

typedef void (*PairTileFn)(int64_t pairs, const Pair* a, int64_t a_row, int64_t a_step, const Pair* b, int64_t b_step,
                           float* c, int64_t ldc, int64_t w, Out out, const float* bias, const Pair* ahead,
                           int64_t ahead_step);

// [width in vectors - 1][rows - 1]
#define PBP_PAIR_TILES(NV)                                                                                           \
  pair_tile<1, NV>, pair_tile<2, NV>, pair_tile<3, NV>, pair_tile<4, NV>, pair_tile<5, NV>, pair_tile<6, NV>,        \
      pair_tile<7, NV>, pair_tile<8, NV>, pair_tile<9, NV>, pair_tile<10, NV>, pair_tile<11, NV>, pair_tile<12, NV>, \
      pair_tile<13, NV>, pair_tile<14, NV>
constexpr PairTileFn kPairTiles[2][kPairTileRows] = {{PBP_PAIR_TILES(1)}, {PBP_PAIR_TILES(2)}};
#undef PBP_PAIR_TILES

#endif

}  // namespace
}  // namespace pbp
