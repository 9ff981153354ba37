// Counter-based random numbers: a 32-bit number for every (seed, step, index of the random op, row, column), a pure
// function of the five. Threads, blocking, instruction set and dtype therefore never change a mask, and backward
// recomputes what forward drew.
//
//   stream = mix64(mix64(mix64(seed + G) + step + G) + index + G)        once per op and step
//   (b, a) = halves of mix64(stream + (row + 1) G)                       once per row, 64-bit integers
//   number = second(first(column ^ a) ^ b)                               per element, 32-bit integers on vector lanes
//
// G is the golden ratio times 2^64 and mix64 the finaliser of SplitMix64 (Steele, Lea, Flood 2014). `first` and
// `second` are xorshift-multiply permutations of 32 bits whose constants come from C. Wellons' search for low avalanche
// bias (hash-prospector, 2018 and later). Being permutations, they give each row 2^32 columns before a number can
// repeat.
#pragma once
#include "vec.h"

namespace pbp {
namespace {

constexpr uint64_t kGolden64 = 0x9e3779b97f4a7c15u;

PBP_INLINE uint64_t mix64(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

PBP_INLINE uint64_t random_stream(const RunState& run, int64_t index) {
  return mix64(mix64(mix64(run.seed + kGolden64) + run.step + kGolden64) + uint64_t(index) + kGolden64);
}

// 16 lanes of unsigned 32-bit integers.
struct Bits32 {
  static constexpr int N = 64 / kVecBytes, L = kVecBytes / 4;
  typedef uint32_t V __attribute__((vector_size(kVecBytes)));
  V v[N];
};

// The numbers of one row (counted over the whole step, not within the batch).
struct RandomRow {
  uint32_t a, b;

  PBP_INLINE RandomRow(uint64_t stream, int64_t row) {
    const uint64_t z = mix64(stream + (uint64_t(row) + 1) * kGolden64);
    a = uint32_t(z);
    b = uint32_t(z >> 32);
  }
  // Columns [column, column + 16).
  PBP_INLINE Bits32 draw(int64_t column) const {
    constexpr int N = Bits32::N, L = Bits32::L;
    typedef Bits32::V V;
    Bits32 r;
    PBP_EACH {
      V x;
#pragma GCC unroll 16
      for (int j = 0; j < L; ++j) x[j] = uint32_t(i * L + j);
      x = (x + uint32_t(column)) ^ a;
      x = (x ^ (x >> 16)) * 0x7feb352du;
      x = (x ^ (x >> 15)) * 0x846ca68bu;
      x = x ^ (x >> 16) ^ b;
      x = (x ^ (x >> 16)) * 0x21f0aaadu;
      x = (x ^ (x >> 15)) * 0x735a2d97u;
      r.v[i] = x ^ (x >> 15);
    }
    return r;
  }
};

// Lane by lane: value where the number is at least threshold, else 0. P(value) = 1 - threshold / 2^32.
template <class T>
PBP_INLINE Vec<T> unless_below(const Bits32& number, uint32_t threshold, T value) {
  if constexpr (sizeof(T) == 4) {
    constexpr int N = Bits32::N;
    Vec<T> r;
    PBP_EACH {
      const Bits32::V limit = Bits32::V{} + threshold;
      r.v[i] = (typename Native<T>::V)((typename Native<T>::I)(typename Vec<T>::V{} + value) &
                                       (typename Native<T>::I)(number.v[i] >= limit));
    }
    return r;
  } else {
    alignas(64) uint32_t n[kLanes];
    alignas(64) T r[kLanes];
    memcpy(n, number.v, sizeof n);
    for (int i = 0; i < kLanes; ++i) r[i] = n[i] >= threshold ? value : T(0);
    return Vec<T>::load(r);
  }
}

}  // namespace
}  // namespace pbp
