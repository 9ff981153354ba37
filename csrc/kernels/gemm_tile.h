// The micro-kernel of every matrix product: one register tile, templated on its rows and on its width in native
// vectors. Each element of the tile is one chain of fused multiply-adds over k, in order, started from zero: the same
// bits whatever the tile's shape. Nothing here knows about blocking, packing or edges.
#pragma once
#include "vec.h"

namespace pbp {
namespace {

// How a product meets what lies in C. `kBias` adds one number to each column.
enum class Out : int { kStore, kAdd, kBias };

template <class T>
constexpr int kNativeLanes = kVecBytes / int(sizeof(T));

// C[MR x NV*L] = A[MR x k] * B[k x NV*L], then `out`. A's element (i, k) lies at a[i * a_row + k * a_step], row k of
// B at b + k * ldb; whole vectors of B, C and bias are touched. A leaf function with every loop over the tile
// unrolled: that is what keeps the accumulators in registers.
template <class T, int MR, int NV>
__attribute__((noinline)) void gemm_tile(int64_t k, const T* __restrict a, int64_t a_row, int64_t a_step,
                                         const T* __restrict b, int64_t ldb, T* __restrict c, int64_t ldc, Out out,
                                         const T* bias) {
  typedef typename Native<T>::V V;
  typedef typename Native<T>::U U;
  constexpr int L = kNativeLanes<T>;
  V acc[MR][NV];
#pragma GCC unroll 32
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) acc[i][j] = V{};
  // Four rows a pointer: with one index for each of 14 rows GCC runs out of integer registers. The empty asm keeps it
  // from merging the pointers again.
  constexpr int G = (MR + 3) / 4;
  const T* at[G];
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) {
    at[g] = a + 4 * g * a_row;
    asm("" : "+r"(at[g]));
  }
  for (; k > 0; --k, b += ldb) {
    V row[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) row[j] = *(const U*)(b + j * L);
#pragma GCC unroll 32
    for (int i = 0; i < MR; ++i) {
      const V x = at[i / 4][i % 4 * a_row] - V{};  // a broadcast; s + 0 would be an addition, s - 0 is s itself
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] = fma1(x, row[j], acc[i][j]);
    }
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) at[g] += a_step;
  }
  if (out == Out::kBias) {
    V row[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) row[j] = *(const U*)(bias + j * L);
#pragma GCC unroll 32
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] = acc[i][j] + row[j];
  } else if (out == Out::kAdd) {
#pragma GCC unroll 32
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] = *(const U*)(c + i * ldc + j * L) + acc[i][j];
  }
#pragma GCC unroll 32
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) *(U*)(c + i * ldc + j * L) = acc[i][j];
}

template <class T>
using TileFn = void (*)(int64_t k, const T* a, int64_t a_row, int64_t a_step, const T* b, int64_t ldb, T* c,
                        int64_t ldc, Out out, const T* bias);

// Which tiles exist: [width in natives - 1][rows - 1]. A tile's accumulators, one row of B and one broadcast fit the
// register file (32 on AVX-512 and NEON; 16 else, of which a level without FMA needs one more for the product).
#define PBP_TILES_4(NV) gemm_tile<T, 1, NV>, gemm_tile<T, 2, NV>, gemm_tile<T, 3, NV>, gemm_tile<T, 4, NV>
#define PBP_TILES_6(NV) PBP_TILES_4(NV), gemm_tile<T, 5, NV>, gemm_tile<T, 6, NV>
#define PBP_TILES_8(NV) PBP_TILES_6(NV), gemm_tile<T, 7, NV>, gemm_tile<T, 8, NV>
#define PBP_TILES_12(NV) \
  PBP_TILES_8(NV), gemm_tile<T, 9, NV>, gemm_tile<T, 10, NV>, gemm_tile<T, 11, NV>, gemm_tile<T, 12, NV>
#define PBP_TILES_14(NV) PBP_TILES_12(NV), gemm_tile<T, 13, NV>, gemm_tile<T, 14, NV>

constexpr int kMaxTileRows = 14;
#if defined(__AVX512F__)
constexpr int kMaxTileWidth = 4;
constexpr int kTileRows[kMaxTileWidth] = {14, 14, 8, 6};
template <class T>
constexpr TileFn<T> kTiles[kMaxTileWidth][kMaxTileRows] = {
    {PBP_TILES_14(1)}, {PBP_TILES_14(2)}, {PBP_TILES_8(3)}, {PBP_TILES_6(4)}};
#elif defined(__AVX2__)
constexpr int kMaxTileWidth = 2;
constexpr int kTileRows[kMaxTileWidth] = {12, 6};
template <class T>
constexpr TileFn<T> kTiles[kMaxTileWidth][kMaxTileRows] = {{PBP_TILES_12(1)}, {PBP_TILES_6(2)}};
#elif defined(__aarch64__)
constexpr int kMaxTileWidth = 3;
constexpr int kTileRows[kMaxTileWidth] = {14, 12, 8};
template <class T>
constexpr TileFn<T> kTiles[kMaxTileWidth][kMaxTileRows] = {{PBP_TILES_14(1)}, {PBP_TILES_12(2)}, {PBP_TILES_8(3)}};
#else
constexpr int kMaxTileWidth = 2;
constexpr int kTileRows[kMaxTileWidth] = {8, 4};
template <class T>
constexpr TileFn<T> kTiles[kMaxTileWidth][kMaxTileRows] = {{PBP_TILES_8(1)}, {PBP_TILES_4(2)}};
#endif

#undef PBP_TILES_4
#undef PBP_TILES_6
#undef PBP_TILES_8
#undef PBP_TILES_12
#undef PBP_TILES_14

}  // namespace
}  // namespace pbp
