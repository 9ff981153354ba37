// Half-width products: C = A * B with float operands rounded to bfloat16 as they are packed, and float sums. They take
// the Product of gemm.h, with any strides.
//
// Packing is what they cost beside the float ones, so an operand that several tasks need is packed once, in a phase of
// its own (pack_pairs), and read by all (gemm_packed, gemm_both_packed). Blocks of k depend on k alone: an element of C
// has the same bits whatever m, n, the form taken and the split into tasks.
#pragma once
#include "gemm.h"
#include "gemm_bf16_pack.h"

namespace pbp {
namespace {

constexpr int64_t kPairDepth = 1024;  // k of one block: its panel (64 KiB) stays in L2 beside a block of A
constexpr int64_t kPairRows = 256;    // rows of a block of A (528 KiB at most)

// The length of k's blocks: whole vectors of pairs, unless there is one block only.
PBP_INLINE int64_t pair_depth(int64_t k) {
  const int64_t blocks = ceil_div(k, kPairDepth);
  return blocks > 1 ? ceil_div(ceil_div(k, blocks), 32) * 32 : k;
}

// Bytes of a packed operand with n columns. Blocks of k follow each other; each holds its panels one after the other,
// [pairs][32], the last perhaps [pairs][16].
PBP_INLINE int64_t packed_bytes(int64_t k, int64_t n) {
  return ceil_div(k, 2) * (ceil_div(n, 16) * 16) * int64_t(sizeof(uint32_t));
}

// Rows of A as pairs: the distance of rows, in words. Odd in cache lines: rows spread over the sets.
PBP_INLINE int64_t pair_row_step(int64_t k) { return (ceil_div(ceil_div(k, 2), 16) | 1) * 16; }

// Private bytes of a product with a packed B, and with neither packed.
PBP_INLINE int64_t gemm_packed_local(int64_t m, int64_t k) {
  const int64_t rows = ceil_div(min64(m, kPairRows), 32) * 32;
  return rows * pair_row_step(pair_depth(k)) * int64_t(sizeof(uint32_t));
}
PBP_INLINE int64_t gemm_bf16_local(int64_t m, int64_t k) {
  return gemm_packed_local(m, k) + ceil_div(pair_depth(k), 2) * 32 * int64_t(sizeof(uint32_t));
}

#if defined(__AVX512F__)

// Whether C's lines are worth fetching before they are stored: C does not stay in L2, and k is too short to hide them.
PBP_INLINE bool stores_bound(int64_t m, int64_t n, int64_t k) { return m * n > 128 << 10 && k <= 512; }

// A as the micro-kernel broadcasts it: word (i, q) at at[i * row + q * step].
struct PairRows {
  const Pair* at;
  int64_t row, step;
};

// Columns [j0, j1) of B (k, n) into the panels of one block; j0 is a multiple of 32, j1 too or n.
inline void pack_block(int64_t k, int64_t j0, int64_t j1, const Operand<float>& b, int64_t n, Pair* to) {
  const int64_t pairs = ceil_div(k, 2), padded = ceil_div(n, 16) * 16;
  for (int64_t j = j0; j < j1;) {
    const int64_t w = b.col == 1 ? j1 - j : min64(kPairLanes, j1 - j), panel = j / kPanel * kPanel;
    const int64_t last = (j + w - 1) / kPanel * kPanel, width = min64(kPanel, padded - last);
    Pair* const at = to + panel * pairs + j % kPanel;
    const float* const from = b.at + j * b.col;
    if (b.col == 1)
      pack_pairs_straight(k, w, from, b.row, at, kPanel * pairs, width);
    else if (b.row == 1 && w == kPairLanes)
      pack_pairs_turned(k, from, b.col, at, width);
    else
      pack_pairs_scattered(k, w, from, b.row, b.col, at, width);
    j += w;
  }
}

// Columns [j0, j1) of B (k, n), all blocks of k.
inline void pack_pairs(int64_t k, int64_t j0, int64_t j1, const Operand<float>& b, int64_t n, void* to) {
  const int64_t depth = pair_depth(k), padded = ceil_div(n, 16) * 16;
  Pair* const words = static_cast<Pair*>(to);
  for (int64_t k0 = 0; k0 < k; k0 += depth)
    pack_block(min64(depth, k - k0), j0, min64(j1, n), b.from(k0, 0), n, words + k0 / 2 * padded);
}

// Columns [j0, j1) of a block times all of its m rows; j0 is a multiple of 16. C, bias are those of column j0. The
// first two tiles of a panel fetch the next one into L2, half of it each: in a large matrix every panel comes from
// afar. With `fetch_c` a tile fetches its neighbour's lines of C, too.
inline void pair_panels(int64_t m, int64_t pairs, const PairRows& a, const Pair* block, int64_t n, int64_t j0,
                        int64_t j1, float* c, int64_t ldc, Out out, const float* bias, bool fetch_c) {
  const int64_t padded = ceil_div(n, 16) * 16;
  const RowTiles t = row_tiles(m, kPairTileRows);
  for (int64_t j = j0; j < j1;) {
    const int64_t panel = j / kPanel * kPanel, step = min64(kPanel, padded - panel);
    const int64_t w = min64(panel + step, j1) - j;
    const Pair* const b = block + panel * pairs + (j - panel);
    const PairTileFn* const tiles = kPairTiles[w > kPairLanes];
    for (int64_t q = 0, i = 0; q < t.count; ++q) {
      const int64_t rows = t.rows + (q < t.larger);
      const bool fetch = q < 2 && j + w < j1;
      float* const to = c + i * ldc + (j - j0);
      if (fetch_c && j + w < j1)
        for (int64_t r = 0; r < rows; ++r) {
          __builtin_prefetch(to + r * ldc + w, 1);
          __builtin_prefetch(to + r * ldc + w + kPairLanes, 1);
        }
      tiles[rows - 1](pairs, a.at + i * a.row, a.row, a.step, b, step, to, ldc, w, out, bias_at(bias, j - j0),
                      fetch ? b + (q + 2) * pairs * 16 : b, fetch ? 16 : 0);
      i += rows;
    }
    j += w;
  }
}

// Some rows of A (m, k), at most kPairRows, into private bytes: by rows where they are contiguous, else in panels.
inline void pack_rows(int64_t m, int64_t k, const Operand<float>& a, Pair* to) {
  if (a.col == 1)
    pack_pair_rows(m, k, a.at, a.row, to, pair_row_step(k));
  else
    pack_block(k, 0, m, a.transposed(), m, to);
}

// The product of rows packed by pack_rows with columns of a block.
inline void rows_times_panels(int64_t m, int64_t k, bool by_rows, const Pair* rows, const Pair* block, int64_t n,
                              float* c, int64_t ldc, Out out, const float* bias, bool fetch_c) {
  const int64_t pairs = ceil_div(k, 2);
  if (by_rows) return pair_panels(m, pairs, {rows, pair_row_step(k), 1}, block, n, 0, n, c, ldc, out, bias, fetch_c);
  const int64_t padded = ceil_div(m, 16) * 16;
  for (int64_t i = 0; i < m; i += kPanel) {
    const PairRows a{rows + i * pairs, 1, min64(kPanel, padded - i)};
    pair_panels(min64(kPanel, m - i), pairs, a, block, n, 0, n, c + i * ldc, ldc, out, bias, fetch_c);
  }
}

// C = A * B where B (k, n) was packed by pack_pairs; p.b is not read. `local` has gemm_packed_local(m, k) bytes.
inline void gemm_packed(const Product<float>& p, const void* b, void* local) {
  const int64_t depth = pair_depth(p.k), padded = ceil_div(p.n, 16) * 16;
  const bool fetch_c = stores_bound(p.m, p.n, p.k);
  Pair* const rows = static_cast<Pair*>(local);
  for (int64_t i = 0; i < p.m; i += kPairRows) {
    const int64_t m = min64(kPairRows, p.m - i);
    Out out = p.out;
    int64_t k0 = 0;
    do {
      const int64_t k = min64(depth, p.k - k0);
      const Pair* const block = static_cast<const Pair*>(b) + k0 / 2 * padded;
      pack_rows(m, k, p.a.from(i, k0), rows);
      rows_times_panels(m, k, p.a.col == 1, rows, block, p.n, p.c + i * p.ldc, p.ldc, out, p.bias, fetch_c);
      out = Out::kAdd;
      k0 += k;
    } while (k0 < p.k);
  }
}

// C = A * B where neither is packed: panels of B are, again for each block of rows. `local` has gemm_bf16_local(m, k)
// bytes.
inline void gemm_bf16(const Product<float>& p, void* local) {
  const int64_t depth = pair_depth(p.k);
  Pair* const rows = static_cast<Pair*>(local);
  Pair* const panel = rows + gemm_packed_local(p.m, p.k) / int64_t(sizeof(Pair));
  for (int64_t i = 0; i < p.m; i += kPairRows) {
    const int64_t m = min64(kPairRows, p.m - i);
    Out out = p.out;
    int64_t k0 = 0;
    do {
      const int64_t k = min64(depth, p.k - k0);
      pack_rows(m, k, p.a.from(i, k0), rows);
      for (int64_t j = 0; j < p.n; j += kPanel) {
        const int64_t w = min64(kPanel, p.n - j);
        pack_block(k, 0, w, p.b.from(k0, j), w, panel);
        rows_times_panels(m, k, p.a.col == 1, rows, panel, w, p.c + i * p.ldc + j, p.ldc, out, bias_at(p.bias, j),
                          false);
      }
      out = Out::kAdd;
      k0 += k;
    } while (k0 < p.k);
  }
}

// Rows [i0, i1) and columns [j0, j1) of C = A * B, where A^T (k, m) and B (k, n) were packed by pack_pairs. j0 is a
// multiple of 16; c is element (i0, j0).
inline void gemm_both_packed(int64_t k, const void* a, int64_t m, int64_t i0, int64_t i1, const void* b, int64_t n,
                             int64_t j0, int64_t j1, float* c, int64_t ldc, Out out) {
  const int64_t depth = pair_depth(k), rows = ceil_div(m, 16) * 16, cols = ceil_div(n, 16) * 16;
  const bool fetch_c = stores_bound(m, n, k);
  int64_t k0 = 0;
  do {
    const int64_t pairs = ceil_div(min64(depth, k - k0), 2);
    const Pair* const at = static_cast<const Pair*>(a) + k0 / 2 * rows;
    const Pair* const block = static_cast<const Pair*>(b) + k0 / 2 * cols;
    for (int64_t i = i0; i < i1;) {
      const int64_t panel = i / kPanel * kPanel, step = min64(kPanel, rows - panel);
      const int64_t end = min64(panel + kPanel, i1);
      const PairRows left{at + panel * pairs + (i - panel), 1, step};
      pair_panels(end - i, pairs, left, block, n, j0, j1, c + (i - i0) * ldc, ldc, out, nullptr, fetch_c);
      i = end;
    }
    out = Out::kAdd;
    k0 += depth;
  } while (k0 < k);
}

#else  // never reached: Infer::bf16() is false on this level

inline void pack_pairs(int64_t, int64_t, int64_t, const Operand<float>&, int64_t, void*) {}
inline void gemm_packed(const Product<float>&, const void*, void*) {}
inline void gemm_bf16(const Product<float>&, void*) {}
inline void gemm_both_packed(int64_t, const void*, int64_t, int64_t, int64_t, const void*, int64_t, int64_t, int64_t,
                             float*, int64_t, Out) {}

#endif

}  // namespace
}  // namespace pbp
