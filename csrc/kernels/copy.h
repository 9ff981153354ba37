// Strided copies. Transpositions, slices, concatenations and broadcasts are all "this box of elements from there to
// here".
#pragma once
#include "vec.h"

namespace pbp {
namespace {

// Axes from outermost to innermost; strides in elements, `from` may be 0 (broadcast) or negative (reversed). Axes that
// one stride can walk through together are joined as they are pushed.
struct Box {
  int rank = 0;
  bool empty = false;
  int64_t n[kMaxRank], to[kMaxRank], from[kMaxRank];

  PBP_INLINE void push(int64_t count, int64_t to_step, int64_t from_step) {
    if (count == 0) empty = true;
    if (count == 1) return;
    if (rank && to[rank - 1] == count * to_step && from[rank - 1] == count * from_step) {
      n[rank - 1] *= count;
      to[rank - 1] = to_step;
      from[rank - 1] = from_step;
      return;
    }
    n[rank] = count;
    to[rank] = to_step;
    from[rank] = from_step;
    ++rank;
  }
};

// A square of L x L elements turned in registers: log2(L) rounds of exchanging blocks between row pairs.
template <class T>
PBP_INLINE void transpose_square(const T* from, int64_t from_row, T* to, int64_t to_row) {
  constexpr int L = Vec<T>::L;
  typedef typename Native<T>::V V;
  typedef typename Native<T>::U U;
  typedef typename Native<T>::I I;
  V r[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) r[i] = *(const U*)(from + i * from_row);
#pragma GCC unroll 4
  for (int w = L / 2; w; w /= 2) {
    I low, high;
#pragma GCC unroll 16
    for (int j = 0; j < L; ++j) {
      low[j] = j & w ? j - w + L : j;
      high[j] = j & w ? j + L : j + w;
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i)
      if (!(i & w)) {
        const V a = r[i], b = r[i + w];
#if defined(__clang__)
        V p, q;
#pragma GCC unroll 16
        for (int j = 0; j < L; ++j) {
          p[j] = j & w ? b[j - w] : a[j];
          q[j] = j & w ? b[j] : a[j + w];
        }
        r[i] = p;
        r[i + w] = q;
#else
        r[i] = __builtin_shuffle(a, b, low);
        r[i + w] = __builtin_shuffle(a, b, high);
#endif
      }
  }
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) *(U*)(to + i * to_row) = r[i];
}

// to[i * to_row + j] = from[j * from_row + i] for i < rows, j < columns, in tiles that stay in L1.
template <class T>
void transpose_plane(int64_t rows, int64_t columns, T* to, int64_t to_row, const T* from, int64_t from_row) {
  constexpr int64_t L = Vec<T>::L, kTile = 16;
  for (int64_t i0 = 0; i0 < rows; i0 += kTile)
    for (int64_t j0 = 0; j0 < columns; j0 += kTile) {
      const int64_t i1 = i0 + kTile < rows ? i0 + kTile : rows, j1 = j0 + kTile < columns ? j0 + kTile : columns;
      if (i1 - i0 == kTile && j1 - j0 == kTile) {
        for (int64_t i = i0; i < i1; i += L)
          for (int64_t j = j0; j < j1; j += L)
            transpose_square(from + j * from_row + i, from_row, to + i * to_row + j, to_row);
      } else {
        for (int64_t i = i0; i < i1; ++i)
          for (int64_t j = j0; j < j1; ++j) to[i * to_row + j] = from[j * from_row + i];
      }
    }
}

template <class T>
PBP_INLINE void copy_run(int64_t n, T* to, int64_t to_step, const T* from, int64_t from_step) {
  if (to_step == 1 && from_step == 1) {
    if (n < 8)
      for (int64_t i = 0; i < n; ++i) to[i] = from[i];
    else
      memcpy(to, from, size_t(n) * sizeof(T));
  } else if (from_step == 0) {
    const T v = *from;
    for (int64_t i = 0; i < n; ++i) to[i * to_step] = v;
  } else {
    for (int64_t i = 0; i < n; ++i) to[i * to_step] = from[i * from_step];
  }
}

// to[sum i_k to_k] = from[sum i_k from_k] over the box.
template <class T>
void copy_box(Box b, T* to, const T* from) {
  if (b.empty) return;
  if (b.rank == 0) {
    *to = *from;
    return;
  }
  // The axis, if any, along which `from` is contiguous while `to` is contiguous along the last one: a plane to
  // transpose.
  const int last = b.rank - 1;
  int turn = -1;
  if (b.to[last] == 1 && b.from[last] != 1 && b.from[last] != 0)
    for (int i = 0; i < last; ++i)
      if (b.from[i] == 1) turn = i;
  int axes[kMaxRank], outer = 0;
  for (int i = 0; i < last; ++i)
    if (i != turn) axes[outer++] = i;
  int64_t at[kMaxRank] = {0};
  for (;;) {
    if (turn >= 0)
      transpose_plane(b.n[turn], b.n[last], to, b.to[turn], from, b.from[last]);
    else
      copy_run(b.n[last], to, b.to[last], from, b.from[last]);
    int k = outer - 1;
    for (; k >= 0; --k) {
      const int a = axes[k];
      to += b.to[a];
      from += b.from[a];
      if (++at[k] < b.n[a]) break;
      to -= b.n[a] * b.to[a];
      from -= b.n[a] * b.from[a];
      at[k] = 0;
    }
    if (k < 0) return;
  }
}

// Strides of a dense row-major shape.
PBP_INLINE void dense_strides(const Shape& s, int64_t* stride) {
  int64_t n = 1;
  for (int i = s.rank - 1; i >= 0; --i) {
    stride[i] = n;
    n *= s.dim[i];
  }
}

}  // namespace
}  // namespace pbp
