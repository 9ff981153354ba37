// Matrix products: C = A * B for operands with any strides. The driver walks blocks of k, panels of columns and tiles
// of rows; a panel of B is read where it lies if the micro-kernel can, else packed into the thread's private bytes.
//
// The sum over k is cut into blocks that depend on k alone, each one chain of fused multiply-adds, added in order. So
// an element of C has the same bits whatever m, n, the tiles chosen, the form taken and the split into tasks.
#pragma once
#include "gemm_pack.h"

namespace pbp {
namespace {

constexpr int64_t kGemmDepth = 512;  // k of one block: a panel of B (128 KiB at most) stays in L2
// From this many rows on a contiguous panel is copied before use: its rows lie a leading dimension apart, so each is
// a cache line or four on a page of its own. Narrow panels gain most (AVX2, 256 x 1024 x 1024: 67 % of peak in place,
// 83 % copied).
constexpr int64_t kPackRows = kVecBytes == 64 ? 512 : 128;
constexpr int64_t kNear = int64_t(512) << 10;  // bytes of B or C that are taken to be in L2
constexpr int64_t kTransposedRows = 48;  // rows of a block that is stored transposed: a multiple of every L, MR <= 12

// A transposed A is read a few elements at a time, a leading dimension apart. Where that is a multiple of a page they
// all fall into the same sets of the caches; over long sums they leave them. Then so many rows of it are copied side by
// side (2048 x 2048 x 2048: 68 % of peak in place, 92 % copied).
constexpr int64_t kCopiedBytes = 384, kLongSum = 512, kShortSum = 128;
template <class T>
constexpr int64_t kCopiedRows = kCopiedBytes / int64_t(sizeof(T));

PBP_INLINE int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
PBP_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Element (i, j) lies at at[i * row + j * col].
template <class T>
struct Operand {
  const T* at;
  int64_t row, col;
  PBP_INLINE Operand transposed() const { return {at, col, row}; }
  PBP_INLINE Operand from(int64_t i, int64_t j) const { return {at + i * row + j * col, row, col}; }
};

// Memory that a product fetches ahead, a little with every tile: `rows` runs of `bytes`, `step` bytes apart.
struct Stream {
  const char* at = nullptr;
  int64_t rows = 0, step = 0, bytes = 0;

  // The `part`-th of so many equal parts.
  PBP_INLINE void fetch(int64_t part, int64_t parts) const {
    for (int64_t r = rows * part / parts, end = rows * (part + 1) / parts; r < end; ++r)
      for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(at + r * step + byte, 0, 2);
  }
};

// What one panel's tiles fetch: the panel of B that comes next, whose rows lie too far apart for the hardware to guess
// (256 x 1024 x 1024 forward: 90 % of peak without, 94 % with); their own places in C; and a part of what the caller
// wants afterwards.
struct Ahead {
  Stream next;
  bool c = false;
  const Stream* wanted = nullptr;
  int n_wanted = 0;
  int64_t panel = 0, panels = 1;

  PBP_INLINE void fetch(int64_t tile, int64_t tiles) const {
    next.fetch(tile, tiles);
    for (int k = 0; k < n_wanted; ++k) wanted[k].fetch(panel * tiles + tile, panels * tiles);
  }
};

// C (m, n) with rows `ldc` apart and contiguous columns = A (m, k) * B (k, n), then `out`; bias is (n).
template <class T>
struct Product {
  int64_t m, n, k;
  Operand<T> a, b;
  T* c;
  int64_t ldc;
  Out out = Out::kStore;
  const T* bias = nullptr;
  bool b_padded = false;           // B's rows are contiguous and readable up to the next multiple of 16 columns
  const Stream* wanted = nullptr;  // fetched on the way
  int n_wanted = 0;
};

// The length of k's blocks.
PBP_INLINE int64_t gemm_depth(int64_t k) {
  const int64_t blocks = ceil_div(k, kGemmDepth);
  return blocks > 1 ? ceil_div(ceil_div(k, blocks), kLanes) * kLanes : k;
}

// Private bytes a product over k needs at most, for either dtype and form.
PBP_INLINE int64_t gemm_local(int64_t k) {
  return (gemm_depth(k) + kTransposedRows) * kMaxTileWidth * kVecBytes + gemm_depth(k) * kCopiedBytes;
}

// m rows in equal tiles: the first `larger` have one row more.
struct RowTiles {
  int64_t count, rows, larger;
};
PBP_INLINE RowTiles row_tiles(int64_t m, int64_t most) {
  const int64_t count = ceil_div(m, most), rows = m / count;
  return {count, rows, m - rows * count};
}

// Half cycles for one step of k over m rows of a panel nv natives wide: multiply-adds, loads, or the chain's latency.
PBP_INLINE int64_t panel_cost(int64_t m, int64_t nv) {
  const RowTiles t = row_tiles(m, kTileRows[nv - 1]);
  auto tile = [nv](int64_t rows) {
    int64_t cost = rows * nv;
    if (cost < rows + nv) cost = rows + nv;
    return cost < 8 ? 8 : cost;
  };
  return t.larger * tile(t.rows + 1) + (t.count - t.larger) * tile(t.rows);
}

struct TileChoice {
  int width;     // natives of a full panel
  int64_t cost;  // half cycles for one step of k
};

// The panel width that wastes least on m x n.
template <class T>
TileChoice choose_tile(int64_t m, int64_t n) {
  constexpr int64_t L = kNativeLanes<T>;
  const int64_t natives = ceil_div(n, L);
  TileChoice best{1, INT64_MAX};
  for (int nv = int(min64(kMaxTileWidth, natives)); nv >= 1; --nv) {
    const int64_t full = natives / nv, last = natives - full * nv;
    const int64_t cost = full * panel_cost(m, nv) + (last ? panel_cost(m, last) : 0);
    if (cost < best.cost) best = {nv, cost};
  }
  return best;
}

// A panel of B for the micro-kernel: in place if its vectors may be read whole, else packed to `work`.
template <class T>
struct Panel {
  const T* at;
  int64_t ld;
};
template <class T>
PBP_INLINE Panel<T> take_panel(int64_t k, int64_t w, int64_t width, const Operand<T>& b, bool in_place, T* work) {
  if (in_place) return {b.at, b.row};
  pack_panel(k, w, width, b.at, b.row, b.col, work);
  return {work, width};
}

// Every row tile of one panel. Rows of `b` are whole vectors; a panel whose last vector is not whole in C goes
// through a tile on the stack.
template <class T>
void gemm_panel(int64_t m, int64_t k, const Operand<T>& a, const Panel<T>& b, int nv, int64_t w, T* c, int64_t ldc,
                Out out, const T* bias, const Ahead& ahead = {}) {
  constexpr int64_t L = kNativeLanes<T>;
  const RowTiles t = row_tiles(m, kTileRows[nv - 1]);
  alignas(64) T edge[kMaxTileRows * 2 * L];
  const bool whole = w == nv * L;
  for (int64_t q = 0, i = 0; q < t.count; ++q) {
    const int64_t rows = t.rows + (q < t.larger);
    const TileFn<T> tile = kTiles<T>[nv - 1][rows - 1];
    const T* x = a.at + i * a.row;
    ahead.fetch(q, t.count);
    if (ahead.c)
      for (int64_t r = i; r < i + rows; ++r)
        for (int64_t j = 0; j < w; j += 64 / int64_t(sizeof(T))) __builtin_prefetch(c + r * ldc + j, 1);
    if (whole) {
      tile(k, x, a.row, a.col, b.at, b.ld, c + i * ldc, ldc, out, bias);
    } else {
      tile(k, x, a.row, a.col, b.at, b.ld, edge, nv * L, Out::kStore, nullptr);
      merge_edge(rows, w, edge, nv * L, c + i * ldc, ldc, out, bias);
    }
    i += rows;
  }
}

// Rows of A broadcast, columns of B in vectors.
template <class T>
void gemm_direct(const Product<T>& p, int width, T* work) {
  constexpr int64_t L = kNativeLanes<T>, kSize = int64_t(sizeof(T));
  const int64_t depth = gemm_depth(p.k);
  const bool far = p.b.col == 1 && p.n * p.k * kSize > kNear;
  const bool far_c = p.n * p.m * kSize > kNear;
  const bool copies =
      p.a.row == 1 && p.n > width * L && (p.k >= kLongSum || (p.k >= kShortSum && p.a.col * kSize % 4096 == 0));
  T* const copy = work + depth * width * L;
  const int64_t block = copies ? kCopiedRows<T> : p.m;
  const int64_t panels = ceil_div(p.n, width * L) * ceil_div(p.k, depth > 0 ? depth : 1) * ceil_div(p.m, block);
  int64_t panel = 0;
  Out out = p.out;
  int64_t k0 = 0;
  do {
    const int64_t k = min64(depth, p.k - k0);
    for (int64_t i = 0; i < p.m; i += block) {
      const int64_t rows = min64(block, p.m - i);
      Operand<T> a = p.a.from(i, k0);
      if (copies) {
        const int64_t ld = ceil_div(rows, L) * L;
        pack_panel(k, rows, ld, a.at, a.col, int64_t(1), copy);
        a = {copy, 1, ld};
      }
      for (int64_t j = 0; j < p.n; j += width * L) {
        const int64_t w = min64(width * L, p.n - j);
        const int nv = int(ceil_div(w, L));
        const bool in_place = p.b.col == 1 && (w == nv * L || p.b_padded) && (p.m < kPackRows || copies);
        const Panel<T> b = take_panel(k, w, nv * L, p.b.from(k0, j), in_place, work);
        Ahead ahead{{}, far_c, p.wanted, p.n_wanted, panel++, panels};
        if (far) {
          const bool last = j + w == p.n, next_block = last && i + rows == p.m;
          const int64_t next_j = last ? 0 : j + w, next_k = next_block ? k0 + k : k0;
          ahead.next = {(const char*)p.b.from(next_k, next_j).at, min64(next_block ? depth : k, p.k - next_k),
                        p.b.row * kSize, min64(width * L, p.n - next_j) * kSize};
        }
        gemm_panel(rows, k, a, b, nv, w, p.c + i * p.ldc + j, p.ldc, out, bias_at(p.bias, j), ahead);
      }
    }
    out = Out::kAdd;
    k0 += k;
  } while (k0 < p.k);
}

// The transpose: columns of B broadcast, rows of A in vectors, blocks turned as they are stored. For an A of few rows
// and a B whose rows are not contiguous this packs the smaller operand.
template <class T>
void gemm_turned(const Product<T>& p, int width, T* work) {
  constexpr int64_t L = kNativeLanes<T>;
  const int64_t depth = gemm_depth(p.k);
  T* const block = work + depth * width * L;
  const Operand<T> a = p.a.transposed(), b = p.b.transposed();
  Out out = p.out;
  int64_t k0 = 0;
  do {
    const int64_t k = min64(depth, p.k - k0);
    for (int64_t j = 0; j < p.m; j += width * L) {
      const int64_t w = min64(width * L, p.m - j);
      const int nv = int(ceil_div(w, L));
      const Panel<T> rows = take_panel(k, w, nv * L, a.from(k0, j), a.col == 1 && w == nv * L, work);
      for (int64_t i = 0; i < p.n; i += kTransposedRows) {
        const int64_t n = min64(kTransposedRows, p.n - i);
        gemm_panel(n, k, b.from(i, k0), rows, nv, nv * L, block, nv * L, Out::kStore, static_cast<const T*>(nullptr));
        merge_transposed(n, w, block, nv * L, p.c + j * p.ldc + i, p.ldc, out, bias_at(p.bias, i));
      }
    }
    out = Out::kAdd;
    k0 += k;
  } while (k0 < p.k);
}

// Half cycles to pack one element whose panel has to be transposed, and to store one transposed.
constexpr int64_t kTransposeCost = 64 / kVecBytes;

// A product of one tile whose operands can be read in place: the small networks' usual case, done before the choices
// below have been weighed.
template <class T>
PBP_INLINE bool gemm_single(const Product<T>& p) {
  constexpr int64_t L = kNativeLanes<T>;
  const int64_t nv = ceil_div(p.n, L);
  if (p.b.col != 1 || nv > kMaxTileWidth || p.m > kTileRows[nv - 1] || p.k > kGemmDepth || p.k == 0) return false;
  if (p.n != nv * L && !p.b_padded) return false;
  gemm_panel(p.m, p.k, p.a, Panel<T>{p.b.at, p.b.row}, int(nv), p.n, p.c, p.ldc, p.out, p.bias);
  return true;
}

// `local` is Task::local with gemm_local(k) bytes. Empty products are legal: k == 0 stores zero (plus bias).
template <class T>
void gemm(const Product<T>& p, void* local) {
  if (p.m <= 0 || p.n <= 0 || gemm_single(p)) return;
  T* const work = static_cast<T*>(local);
  const TileChoice direct = choose_tile<T>(p.m, p.n);
  const int64_t pack_b = p.b.col == 1 ? 0 : p.n * kTransposeCost;
  if (pack_b || direct.cost > p.m * p.n / kNativeLanes<T> * 2) {
    const TileChoice turned = choose_tile<T>(p.n, p.m);
    const int64_t pack_a = p.a.row == 1 ? 0 : p.m * kTransposeCost;
    const int64_t store = p.m * p.n * kTransposeCost / (p.k + 1);
    // The estimate of the turned form is the rosier one: it wants a clear lead.
    if (20 * (turned.cost + pack_a + store) < 19 * (direct.cost + pack_b)) return gemm_turned(p, turned.width, work);
  }
  gemm_direct(p, direct.width, work);
}

}  // namespace
}  // namespace pbp
