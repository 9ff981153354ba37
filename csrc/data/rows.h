// Rows of bytes gathered in any order. The hardware cannot guess where the next row lies, so the rows to come are
// fetched ahead: a batch of 64 rows of 3 KB from DRAM takes half as long.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace pbp {

constexpr ptrdiff_t kAheadBytes = 6144;  // in flight: what the line fill buffers can hold, and a little more

template <ptrdiff_t kBytes>
inline void gather_fixed(char* out, const char* data, ptrdiff_t stride, const int64_t* order, int64_t first,
                         int64_t rows) {
  constexpr int64_t kAhead = 16;
  for (int64_t r = first; r < first + rows; ++r, out += kBytes) {
    if (r + kAhead < first + rows) __builtin_prefetch(data + order[r + kAhead] * stride);
    memcpy(out, data + order[r] * stride, size_t(kBytes));
  }
}

// At out + i * out_stride row order[first + i] of `bytes` bytes, for i < rows; a null order is the rows' own.
inline void gather_rows_of_bytes(char* out, ptrdiff_t out_stride, const char* data, ptrdiff_t stride, ptrdiff_t bytes,
                                 const int64_t* order, int64_t first, int64_t rows) {
  if (bytes == 0) return;
  if (!order) {
    if (stride == bytes && out_stride == bytes) {
      memcpy(out, data + first * stride, size_t(rows * bytes));
      return;
    }
    for (int64_t r = first; r < first + rows; ++r, out += out_stride) memcpy(out, data + r * stride, size_t(bytes));
    return;
  }
  if (out_stride == 4) return gather_fixed<4>(out, data, stride, order, first, rows);
  if (out_stride == 8) return gather_fixed<8>(out, data, stride, order, first, rows);
  if (out_stride == 16) return gather_fixed<16>(out, data, stride, order, first, rows);
  const int64_t ahead = bytes >= kAheadBytes ? 1 : kAheadBytes / bytes < 16 ? kAheadBytes / bytes : 16;
  auto fetch = [&](int64_t r) {
    const char* row = data + order[r] * stride;
    for (ptrdiff_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at);
  };
  const int64_t end = first + rows;
  for (int64_t r = first; r < end && r < first + ahead; ++r) fetch(r);
  for (int64_t r = first; r < end; ++r, out += out_stride) {
    if (r + ahead < end) fetch(r + ahead);
    memcpy(out, data + order[r] * stride, size_t(bytes));
  }
}

// A thread's part of a batch: rows [row, row + rows) of it and of each bytes [at, at + bytes).
struct Part {
  int64_t row, rows;
  ptrdiff_t at, bytes;
};
// Wide rows of a small batch are cut by columns, where the first layer's product is cut too, so that what one thread
// writes is what it reads; others by rows.
inline Part part_of(int64_t rows, ptrdiff_t bytes, ptrdiff_t item, int part, int parts) {
  auto share = [parts](int64_t n, int k) { return (n * k + parts - 1) / parts; };
  if (bytes > 2048 && rows <= bytes / item) {
    const ptrdiff_t from = share((bytes + 63) / 64, part) * 64, to = share((bytes + 63) / 64, part + 1) * 64;
    return {0, rows, from, (to < bytes ? to : bytes) - from};
  }
  const int64_t from = share(rows, part);
  return {from, share(rows, part + 1) - from, 0, bytes};
}

}  // namespace pbp
