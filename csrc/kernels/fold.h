// Contiguous runs reduced in 16 lanes, in an order that follows from their length alone.
#pragma once
#include <math.h>

#include "vec.h"

namespace pbp {
namespace {

constexpr int64_t kPiece =
    256;  // a sum this many additions long is put aside: errors grow with n / 256 + 256, not with n

// A reducer: where it starts, how it takes in an element x (with its output's reference value, and its companion z from
// a second array of the same shape if kPair), and how two partial results join.
template <class T>
struct SumOf {
  static constexpr bool kPair = false;
  static PBP_INLINE Vec<T> start() { return Vec<T>(T(0)); }
  static PBP_INLINE Vec<T> step(Vec<T> a, Vec<T> x, Vec<T>, Vec<T>) { return a + x; }
  static PBP_INLINE Vec<T> join(Vec<T> a, Vec<T> b) { return a + b; }
};
// `max` and `min` give their second operand if either is NaN, so NaN stays in it; one in x is put there.
template <class T>
PBP_INLINE Vec<T> propagate(Vec<T> x, Vec<T> extreme) {
  return select(x != x, x, extreme);
}
template <class T>
struct MaxOf {
  static constexpr bool kPair = false;
  static PBP_INLINE Vec<T> start() { return Vec<T>(T(-INFINITY)); }
  static PBP_INLINE Vec<T> step(Vec<T> a, Vec<T> x, Vec<T>, Vec<T>) { return propagate(x, max(x, a)); }
  static PBP_INLINE Vec<T> join(Vec<T> a, Vec<T> b) { return propagate(b, max(b, a)); }
};
template <class T>
struct MinOf {
  static constexpr bool kPair = false;
  static PBP_INLINE Vec<T> start() { return Vec<T>(T(INFINITY)); }
  static PBP_INLINE Vec<T> step(Vec<T> a, Vec<T> x, Vec<T>, Vec<T>) { return propagate(x, min(x, a)); }
  static PBP_INLINE Vec<T> join(Vec<T> a, Vec<T> b) { return propagate(b, min(b, a)); }
};
// How many elements equal the reference value of their output.
template <class T>
struct CountOf {
  static constexpr bool kPair = false;
  static PBP_INLINE Vec<T> start() { return Vec<T>(T(0)); }
  static PBP_INLINE Vec<T> step(Vec<T> a, Vec<T> x, Vec<T> ref, Vec<T>) {
    return select(x == ref, a + Vec<T>(T(1)), a);
  }
  static PBP_INLINE Vec<T> join(Vec<T> a, Vec<T> b) { return a + b; }
};

// Indices of a shuffle, which takes them modulo the lanes of a native, from memory: GCC 12 does not fold a loop that
// fills them, and sets lane by lane.
constexpr int32_t kLanes32[2 * kLanes] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                          16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
constexpr int64_t kLanes64[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
PBP_INLINE Native<float>::I lanes_from(int w, float) {
  Native<float>::I r;
  memcpy(&r, kLanes32 + w, sizeof r);
  return r;
}
PBP_INLINE Native<double>::I lanes_from(int w, double) {
  Native<double>::I r;
  memcpy(&r, kLanes64 + w, sizeof r);
  return r;
}

// Lane j of the result is lane (j + w) mod 16 of a, for w = 8, 4, 2, 1.
template <class T>
PBP_INLINE Vec<T> turn_lanes(Vec<T> a, int w) {
  constexpr int N = Vec<T>::N, L = Vec<T>::L;
  Vec<T> r;
  PBP_EACH {
    if (w >= L) {
      r.v[i] = a.v[(i + w / L) % N];
    } else {  // the natives are equal by now
#if defined(__clang__)
#pragma GCC unroll 16
      for (int j = 0; j < L; ++j) r.v[i][j] = a.v[i][(j + w) % L];
#else
      r.v[i] = __builtin_shuffle(a.v[i], lanes_from(w, T()));
#endif
    }
  }
  return r;
}

// Halves of the 16 lanes joined until one is left, which then stands in every lane: the fixed tree of `sum`.
template <class R, class T>
PBP_INLINE Vec<T> join_lanes(Vec<T> a) {
#pragma GCC unroll 4
  for (int w = kLanes / 2; w; w /= 2) a = R::join(a, turn_lanes(a, w));
  return a;
}

// R over the n elements f(0), f(16), ... of a contiguous run, in 16 lanes: f(j, lanes) gives elements [j, j + lanes),
// with anything in the other lanes. `take(a, j, lanes)` is one step of R.
template <class R, class T, class Take>
PBP_INLINE Vec<T> fold_lanes(int64_t n, Take take) {
  if (n <= kLanes)
    return n == kLanes ? take(R::start(), 0, n) : select(first_lanes<T>(n), take(R::start(), 0, n), R::start());
  constexpr int kChains = 4;  // independent additions in flight
  Vec<T> total = R::start();
  for (int64_t j0 = 0; j0 < n; j0 += kPiece * kLanes) {
    const int64_t j1 = j0 + kPiece * kLanes < n ? j0 + kPiece * kLanes : n;
    Vec<T> a[kChains];
#pragma GCC unroll 4
    for (int k = 0; k < kChains; ++k) a[k] = R::start();
    int64_t j = j0;
    for (; j + kChains * kLanes <= j1; j += kChains * kLanes) {
#pragma GCC unroll 4
      for (int k = 0; k < kChains; ++k) a[k] = take(a[k], j + k * kLanes, int64_t(kLanes));
    }
    for (; j + kLanes <= j1; j += kLanes) a[0] = take(a[0], j, int64_t(kLanes));
    if (j < j1) a[0] = select(first_lanes<T>(j1 - j), take(a[0], j, j1 - j), a[0]);
    total = R::join(total, R::join(R::join(a[0], a[1]), R::join(a[2], a[3])));
  }
  return total;
}

template <class T>
PBP_INLINE Vec<T> load_lanes(const T* p, int64_t lanes) {
  return lanes == kLanes ? Vec<T>::load(p) : Vec<T>::load(p, lanes);
}
template <class T>
PBP_INLINE void store_lanes(T* p, int64_t lanes, Vec<T> v) {
  if (lanes == kLanes)
    v.store(p);
  else
    v.store(p, lanes);
}

// R over a contiguous row of values f(j, lanes), in every lane.
template <class R, class T, class F>
PBP_INLINE Vec<T> fold_row(int64_t n, Vec<T> ref, F f) {
  return join_lanes<R>(fold_lanes<R, T>(n, [&](Vec<T> a, int64_t j, int64_t lanes) __attribute__((always_inline)) {
    return R::step(a, f(j, lanes), ref, ref);
  }));
}

}  // namespace
}  // namespace pbp
