// Rows of a table by number: fetching them, and adding gradients back to the rows they came from.
#pragma once
#include "vec.h"

namespace pbp {
namespace {

// y[i] = table[ids[i]] for i in [begin, end); rows of `width`.
template <class T>
void fetch_rows(const T* table, const int64_t* ids, int64_t begin, int64_t end, int64_t width, T* y) {
  constexpr int64_t kAhead = 8, kLine = 64 / int64_t(sizeof(T));
  for (int64_t i = begin; i < end; ++i) {
    if (i + kAhead < end) {
      const T* next = table + ids[i + kAhead] * width;
      for (int64_t j = 0; j < width && j < 4 * kLine; j += kLine) __builtin_prefetch(next + j);
    }
    memcpy(y + i * width, table + ids[i] * width, size_t(width) * sizeof(T));
  }
}

template <class T>
PBP_INLINE void add_row(T* to, const T* from, int64_t width) {
  int64_t j = 0;
  for (; j + kLanes <= width; j += kLanes) (Vec<T>::load(to + j) + Vec<T>::load(from + j)).store(to + j);
  if (j < width) (Vec<T>::load(to + j, width - j) + Vec<T>::load(from + j, width - j)).store(to + j, width - j);
}

// d_table[r] (+)= sum of dy[i] over positions i with ids[i] == r, for the rows [begin, end) of the table: their owner
// adds them in the order of i, so the result does not depend on who owns what. `skip` names a row without gradient.
template <class T>
void add_rows_owned(const T* dy, const int64_t* ids, int64_t n, int64_t width, int64_t begin, int64_t end, int64_t skip,
                    bool add, T* d_table) {
  if (!add) memset(d_table + begin * width, 0, size_t((end - begin) * width) * sizeof(T));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t r = ids[i];
    if (r >= begin && r < end && r != skip) add_row(d_table + r * width, dy + i * width, width);
  }
}

// Sorts (id, position) pairs by id, equal ids by position; `key` holds id << 32 | position for ascending positions.
// Radix sort on the bytes of ids below `ids`; `spare` is as long as `key`. The result is in `key`.
inline __attribute__((always_inline)) void sort_ids(uint64_t* key, uint64_t* spare, int64_t n, uint64_t ids) {
  if (n <= 32) {
    for (int64_t i = 1; i < n; ++i) {
      const uint64_t k = key[i];
      int64_t j = i;
      for (; j > 0 && key[j - 1] > k; --j) key[j] = key[j - 1];
      key[j] = k;
    }
    return;
  }
  uint64_t *from = key, *to = spare;
  for (int shift = 32; shift < 64 && (ids - 1) >> (shift - 32); shift += 8) {
    int64_t at[257] = {0};
    for (int64_t i = 0; i < n; ++i) ++at[(from[i] >> shift & 255) + 1];
    for (int b = 0; b < 256; ++b) at[b + 1] += at[b];
    for (int64_t i = 0; i < n; ++i) to[at[from[i] >> shift & 255]++] = from[i];
    uint64_t* const t = from;
    from = to;
    to = t;
  }
  if (from != key) memcpy(key, from, size_t(n) * sizeof(uint64_t));
}

}  // namespace
}  // namespace pbp
