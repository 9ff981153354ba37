// Loops that do nothing but what limits a training step: arithmetic in registers, the matrix product's register tiles
// on operands in cache, and a pass over memory. How long they run and what that means is core/limits.cpp's business.
#include "../core/limit_loops.h"
#include "../kernels/export.h"
#include "../kernels/gemm_tile.h"

namespace pbp {
namespace {

// More chains than latency times units, and few enough for 16 registers with two operands.
constexpr int kChains = 12;
constexpr int kUnroll = 8;

// The product has to depend on the chain: a level without FMA would take an invariant one out of the loop.
template <class T>
double fma_loop(int64_t rounds) {
  typedef typename Native<T>::V V;
  const V a = T(0.5) - V{}, b = T(0.25) - V{};
  V chain[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) chain[i] = T(i) - V{};
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 8
    for (int u = 0; u < kUnroll; ++u)
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i) chain[i] = fma1(chain[i], a, b);
  }
  V sum = chain[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) sum = sum + chain[i];
  volatile T sink = sum[0];
  (void)sink;
  return double(rounds) * kUnroll * kChains * 2 * kNativeLanes<T>;
}

#if defined(__AVX512F__)
__attribute__((target("avx512bf16"))) double bf16_loop(int64_t rounds) {
  const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3c003c00), b = (__m512bh)_mm512_set1_epi32(0x3c803c80);
  __m512 chain[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) chain[i] = _mm512_set1_ps(float(i));
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 8
    for (int u = 0; u < kUnroll; ++u)
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i) chain[i] = _mm512_dpbf16_ps(chain[i], a, b);
  }
  __m512 sum = chain[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) sum = _mm512_add_ps(sum, chain[i]);
  volatile float sink = _mm512_cvtss_f32(sum);
  (void)sink;
  return double(rounds) * kUnroll * kChains * 2 * 32;
}
#endif

void in_place(float* x, int64_t n) {
  typedef Native<float>::U U;
  constexpr int64_t L = kNativeLanes<float>;
  const Native<float>::V a = 0.5f - Native<float>::V{}, b = 0.25f - Native<float>::V{};
  for (int64_t i = 0; i < n; i += 4 * L)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) *(U*)(x + i + j * L) = fma1(*(const U*)(x + i + j * L), a, b);
}

void tile(int rows, int natives, int64_t k, int64_t repeats, const float* a, const float* b, float* c) {
  const int64_t width = natives * kNativeLanes<float>;
  const TileFn<float> f = kTiles<float>[natives - 1][rows - 1];
  for (int64_t r = 0; r < repeats; ++r) f(k, a, k, 1, b, width, c, width, Out::kStore, nullptr);
}

}  // namespace

extern const LimitLoops PBP_JOIN(limit_, loops, PBP_ISA);
const LimitLoops PBP_JOIN(limit_, loops, PBP_ISA) = {{fma_loop<float>, fma_loop<double>},
#if defined(__AVX512F__)
                                                     bf16_loop,
#else
                                                     nullptr,
#endif
                                                     in_place,
                                                     kNativeLanes<float>,
                                                     kMaxTileWidth,
                                                     kTileRows,
                                                     tile};

}  // namespace pbp
