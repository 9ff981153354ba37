// Reductions over any dimensions and their counterpart, spreading one number per output over the elements it came from.
// The order of every sum follows from the shape alone: never from how the outputs are shared among threads.
#pragma once
#include "fold.h"

namespace pbp {
namespace {

// A shape as alternating runs of kept and reduced dimensions, outermost first; lengths of 1 are gone.
struct Groups {
  int n = 0;
  int64_t size[kMaxRank], x[kMaxRank], y[kMaxRank];  // length; stride in the input; stride in the output (0: reduced)
  bool kept[kMaxRank];
  int64_t outputs = 1, reduced = 1;

  PBP_INLINE void push(int64_t count, bool keep) {
    (keep ? outputs : reduced) *= count;
    if (count == 1) return;
    if (n && kept[n - 1] == keep) {
      size[n - 1] *= count;
    } else {
      size[n] = count;
      kept[n++] = keep;
    }
  }
  PBP_INLINE void finish() {
    int64_t in = 1, out = 1;
    for (int i = n - 1; i >= 0; --i) {
      x[i] = in;
      y[i] = kept[i] ? out : 0;
      in *= size[i];
      if (kept[i]) out *= size[i];
    }
  }
  PBP_INLINE bool reduced_first() const { return n && !kept[0]; }
  // The same with only indices [begin, end) of the first group; elements then start at begin * x[0].
  PBP_INLINE Groups part(int64_t begin, int64_t end) const {
    Groups g = *this;
    g.size[0] = end - begin;
    (g.kept[0] ? g.outputs : g.reduced) = (g.kept[0] ? outputs : reduced) / size[0] * (end - begin);
    return g;
  }
};

// Walks a group of axes as one: the offsets of its elements, last axis fastest.
struct Walk {
  int n = 0;
  int64_t size[kMaxRank], step[kMaxRank], at[kMaxRank];
  int64_t offset = 0, count = 1;
  PBP_INLINE Walk() {}
  PBP_INLINE Walk(const Walk& o) : n(o.n), offset(o.offset), count(o.count) {  // only the axes there are
    for (int k = 0; k < n; ++k) {
      size[k] = o.size[k];
      step[k] = o.step[k];
      at[k] = o.at[k];
    }
  }
  PBP_INLINE void push(int64_t length, int64_t stride) {
    size[n] = length;
    step[n] = stride;
    at[n++] = 0;
    count *= length;
  }
  PBP_INLINE void next() {
    for (int k = n - 1; k >= 0; --k) {
      offset += step[k];
      if (++at[k] < size[k]) return;
      offset -= size[k] * step[k];
      at[k] = 0;
    }
  }
  PBP_INLINE void seek(int64_t i) {
    offset = 0;
    for (int k = n - 1; k >= 0; --k) {
      at[k] = i % size[k];
      i /= size[k];
      offset += at[k] * step[k];
    }
  }
};

// Up to 16 W neighbouring outputs, whose elements are neighbours too. Lanes are outputs.
template <class T, int W>
struct Columns {
  const T* x;         // element 0 of the first of these outputs
  const T* z;         // its companion
  const Walk& outer;  // reduced groups but the innermost
  int64_t n, step;    // the innermost reduced group
  int64_t o, lanes;   // first output; how many of the 16 W
  static constexpr int kVecs = W;

  PBP_INLINE Vec<T> fetch(const T* p, int w) const {
    return lanes == kLanes * W ? Vec<T>::load(p + w * kLanes) : Vec<T>::load(p, lanes);
  }
  PBP_INLINE void load(const T* of_outputs, Vec<T>* to) const {
    for (int w = 0; w < W; ++w) to[w] = fetch(of_outputs + o, w);
  }
  PBP_INLINE void store(T* of_outputs, const Vec<T>* v) const {
    for (int w = 0; w < W; ++w) {
      if (lanes == kLanes * W)
        v[w].store(of_outputs + o + w * kLanes);
      else
        v[w].store(of_outputs + o, lanes);
    }
  }
  template <class R>
  PBP_INLINE void reduce(const Vec<T>* ref, Vec<T>* total) const {
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) total[w] = R::start();
    Walk at(outer);
    for (int64_t i = 0; i < outer.count; ++i, at.next())
      for (int64_t j0 = 0; j0 < n; j0 += kPiece) {
        const int64_t j1 = j0 + kPiece < n ? j0 + kPiece : n;
        Vec<T> a[W];
#pragma GCC unroll 4
        for (int w = 0; w < W; ++w) a[w] = R::start();
        const T* p = x + at.offset + j0 * step;
        for (int64_t j = j0; j < j1; ++j, p += step) {
#pragma GCC unroll 4
          for (int w = 0; w < W; ++w)
            a[w] = R::step(a[w], fetch(p, w), ref[w], R::kPair ? fetch(z + (p - x), w) : ref[w]);
        }
#pragma GCC unroll 4
        for (int w = 0; w < W; ++w) total[w] = R::join(total[w], a[w]);
      }
  }
};

// One output whose innermost elements are contiguous. Its value stands in every lane.
template <class T>
struct Run {
  const T* x;
  const T* z;
  const Walk& outer;
  int64_t n;
  int64_t o;
  static constexpr int kVecs = 1;

  PBP_INLINE void load(const T* of_outputs, Vec<T>* to) const { to[0] = Vec<T>(of_outputs[o]); }
  PBP_INLINE void store(T* of_outputs, const Vec<T>* v) const { v[0].store(of_outputs + o, 1); }
  template <class R>
  PBP_INLINE void reduce(const Vec<T>* ref, Vec<T>* total) const {
    Vec<T> t = R::start();
    Walk at(outer);
    for (int64_t i = 0; i < outer.count; ++i, at.next()) {
      const T *p = x + at.offset, *q = R::kPair ? z + at.offset : nullptr;
      const Vec<T> r = ref[0];
      t = R::join(t, fold_lanes<R, T>(n, [&](Vec<T> a, int64_t j, int64_t lanes) __attribute__((always_inline)) {
                    return R::step(a, load_lanes(p + j, lanes), r, R::kPair ? load_lanes(q + j, lanes) : r);
                  }));
    }
    total[0] = join_lanes<R>(t);
  }
};

// Up to 16 neighbouring outputs of a few contiguous elements each. Lanes are outputs.
template <class T>
struct Narrow {
  const T* x;
  const T* z;
  int64_t n;
  int64_t o, lanes;
  static constexpr int kVecs = 1;

  PBP_INLINE Vec<T> element(const T* p) const {
    alignas(64) T b[kLanes] = {};
    for (int64_t k = 0; k < lanes; ++k) b[k] = p[k * n];
    return Vec<T>::load(b);
  }
  PBP_INLINE void load(const T* of_outputs, Vec<T>* to) const { to[0] = load_lanes(of_outputs + o, lanes); }
  PBP_INLINE void store(T* of_outputs, const Vec<T>* v) const { store_lanes(of_outputs + o, lanes, v[0]); }
  template <class R>
  PBP_INLINE void reduce(const Vec<T>* ref, Vec<T>* total) const {
    total[0] = R::start();
    for (int64_t j = 0; j < n; ++j)
      total[0] = R::step(total[0], element(x + j), ref[0], R::kPair ? element(z + j) : ref[0]);
  }
};
constexpr int64_t kNarrowRun = 8;  // elements

// Calls `kind.run(unit)` for outputs [begin, end) of g over x (and the companion array z); a unit is a Columns,
// a Run or a Narrow, and the kind stores.
template <class T, class Kind>
void reduce_outputs(const Groups& g, const T* x, int64_t begin, int64_t end, const Kind& kind, const T* z = nullptr) {
  const bool columns = g.n && g.kept[g.n - 1];
  Walk kept, reduced;
  int inner = -1;  // innermost reduced group
  for (int i = 0; i < g.n; ++i)
    if (!g.kept[i]) inner = i;
  for (int i = 0; i < g.n; ++i) {
    if (g.kept[i] && !(columns && i == g.n - 1)) kept.push(g.size[i], g.x[i]);
    if (!g.kept[i] && i != inner) reduced.push(g.size[i], g.x[i]);
  }
  const int64_t n = inner >= 0 ? g.size[inner] : 1;
  if (g.n == 2 && g.kept[0] && n <= kNarrowRun) {
    for (int64_t o = begin; o < end; o += kLanes)
      kind.run(Narrow<T>{x + o * n, z ? z + o * n : nullptr, n, o, end - o < kLanes ? end - o : int64_t(kLanes)});
    return;
  }
  if (!columns) {
    if (begin < end) kept.seek(begin);
    for (int64_t o = begin; o < end; ++o, kept.next())
      kind.run(Run<T>{x + kept.offset, z ? z + kept.offset : nullptr, reduced, n, o});
    return;
  }
  const int64_t width = g.size[g.n - 1], step = inner >= 0 ? g.x[inner] : 0;
  for (int64_t o = begin; o < end;) {
    const int64_t at = o % width;
    const int64_t row_end = end - o < width - at ? end : o - at + width;
    kept.seek(o / width);
    const T* p = x + kept.offset + at;
    const T* q = z ? z + kept.offset + at : nullptr;
    for (; o < row_end;) {
      const int64_t left = row_end - o;
      if (left >= 4 * kLanes) {
        kind.run(Columns<T, 4>{p, q, reduced, n, step, o, 4 * kLanes});
        o += 4 * kLanes;
        p += 4 * kLanes;
        if (z) q += 4 * kLanes;
      } else {
        const int64_t lanes = left < kLanes ? left : kLanes;
        kind.run(Columns<T, 1>{p, q, reduced, n, step, o, lanes});
        o += lanes;
        p += lanes;
        if (z) q += lanes;
      }
    }
  }
}

// y[o] = R over the elements of output o, divided by `divisor` if it is not 1.
template <class T, class R>
struct Plain {
  T* y;
  T divisor;
  template <class Unit>
  PBP_INLINE void run(const Unit& u) const {
    Vec<T> none[Unit::kVecs], v[Unit::kVecs];
    for (int w = 0; w < Unit::kVecs; ++w) none[w] = Vec<T>(T(0));
    u.template reduce<R>(none, v);
    if (divisor != T(1))
      for (int w = 0; w < Unit::kVecs; ++w) v[w] = v[w] / Vec<T>(divisor);
    u.store(y, v);
  }
};

// z[o] = number of elements of output o equal to y[o].
template <class T>
struct Ties {
  const T* y;
  T* z;
  template <class Unit>
  PBP_INLINE void run(const Unit& u) const {
    Vec<T> ref[Unit::kVecs], v[Unit::kVecs];
    u.load(y, ref);
    u.template reduce<CountOf<T>>(ref, v);
    u.store(z, v);
  }
};

// How a reduction that includes the first dimension is shared: enough outputs, and tasks own outputs; else tasks take
// fixed blocks of the first group, each with a row of partial results that a second phase combines.
struct Split {
  int64_t blocks;  // 1: no partial results
  int64_t block;   // length of a block in the first group
};
constexpr int64_t kSplitElements = 4096, kSplitBlocks = 64, kOutputsPerTask = 64;

PBP_INLINE Split split_first(const Groups& g) {
  Split s{1, 1};
  if (!g.reduced_first() || g.outputs == 0 || g.size[0] == 0) return s;
  const int64_t per_index = g.x[0];
  s.block = g.size[0];
  if (g.outputs >= 8 * kOutputsPerTask) return s;
  const int64_t by_size = (kSplitElements + per_index - 1) / per_index;
  const int64_t by_count = (g.size[0] + kSplitBlocks - 1) / kSplitBlocks;
  s.block = by_size > by_count ? by_size : by_count;
  if (s.block < g.size[0])
    s.blocks = (g.size[0] + s.block - 1) / s.block;
  else
    s.block = g.size[0];
  return s;
}

// The partial results (blocks, outputs) as a reduction of their own.
PBP_INLINE Groups partial_groups(const Groups& g, const Split& s) {
  Groups p;
  p.push(s.blocks, false);
  p.push(g.outputs, true);
  p.finish();
  return p;
}

// dx[e] = f(x[e], y[o], dy[o], z[o]) for the elements [begin, end) of the input, o being e's output. Pointers f does
// not use may be null: F::kUses has bit 0 for x, 1 for y, 2 for z.
template <class T, class F>
void spread(const Groups& g, int64_t begin, int64_t end, T* dx, const T* x, const T* y, const T* dy, const T* z,
            const F& f) {
  if (begin >= end) return;
  const bool columns = g.n && g.kept[g.n - 1];
  const int64_t width = g.n ? g.size[g.n - 1] : 1;
  Walk out;
  for (int i = 0; i + 1 < g.n; ++i) out.push(g.size[i], g.y[i]);
  out.seek(begin / width);
  const Vec<T> none(T(0));
  for (int64_t e = begin; e < end; out.next()) {
    const int64_t at = e % width;
    const int64_t run_end = end - e < width - at ? end : e - at + width;
    int64_t o = out.offset + (columns ? at : 0);
    const Vec<T> dy1 = columns ? none : Vec<T>(dy[o]);
    const Vec<T> y1 = !columns && (F::kUses & 2) ? Vec<T>(y[o]) : none;
    const Vec<T> z1 = !columns && (F::kUses & 4) ? Vec<T>(z[o]) : none;
    for (; e < run_end; e += kLanes, o += kLanes) {
      const int64_t n = run_end - e < kLanes ? run_end - e : kLanes;
      const Vec<T> xv = F::kUses & 1 ? load_lanes(x + e, n) : none;
      Vec<T> r;
      if (columns)
        r = f(xv, F::kUses & 2 ? load_lanes(y + o, n) : none, load_lanes(dy + o, n),
              F::kUses & 4 ? load_lanes(z + o, n) : none);
      else
        r = f(xv, y1, dy1, z1);
      store_lanes(dx + e, n, r);
    }
    e = run_end;
  }
}

}  // namespace
}  // namespace pbp
