// Elementwise functions of two or three inputs under NumPy's broadcasting, and their gradients.
#pragma once
#include "loops.h"
#include "reduce.h"

namespace pbp {
namespace {

// Where an input's gradient is added up.
enum Gather : uint8_t {
  kNone,    // never wanted
  kSame,    // one output element for one of the input's: nothing to add up
  kInRow,   // within a row of the output
  kAcross,  // over rows, in phases of its own
};

template <int NI>
struct BroadcastPlan {
  // The output's dimensions, joined where every input allows; step: elements an input moves along each, 0 if broadcast.
  // The last dimension's step is 0 or 1.
  int rank;
  int64_t dim[kMaxRank], step[NI][kMaxRank];
  int64_t count, grain;
  struct Input {
    Gather gather;
    int phase;            // kAcross: the first of its phases
    Split split;          // kAcross: see reduce.h
    int64_t row_outputs;  // kInRow: elements of the gradient in a row
    int64_t scratch;      // first element of the products before summation; -1: dy itself is summed
    int64_t partial;      // first element of the partial sums
  } input[NI];

  PBP_INLINE Groups groups(int i) const {
    Groups g;
    for (int d = 0; d < rank; ++d) g.push(dim[d], step[i][d] != 0);
    g.finish();
    return g;
  }
};

// The output's shape, or false with the message given.
PBP_INLINE bool broadcast_shape(Infer& s, Shape& out) {
  for (int i = 0; i < s.n_in(); ++i)
    if (s.in(i).rank > out.rank) out.rank = s.in(i).rank;
  for (int d = 0; d < out.rank; ++d) {
    out.dim[d] = 1;
    int of = 0;
    for (int i = 0; i < s.n_in(); ++i) {
      const Shape& in = s.in(i);
      const int k = d - (out.rank - in.rank);
      if (k < 0 || in.dim[k] == 1 || in.dim[k] == out.dim[d]) continue;
      if (out.dim[d] != 1)
        return s.fail(
            "%s of shape %s does not broadcast with %s of shape %s: dimensions, counted from the last, "
            "must be equal or 1",
            s.who(of), s.text(s.in(of)), s.who(i), s.text(in));
      out.dim[d] = in.dim[k];
      of = i;
    }
  }
  return true;
}

template <int NI>
PBP_INLINE void join_dimensions(Infer& s, const Shape& out, BroadcastPlan<NI>& p) {
  int64_t step[NI][kMaxRank] = {};
  for (int i = 0; i < NI; ++i) {
    const Shape& in = s.in(i);
    int64_t n = 1;
    for (int k = in.rank - 1; k >= 0; --k) {
      step[i][k + out.rank - in.rank] = in.dim[k] == 1 ? 0 : n;
      n *= in.dim[k];
    }
  }
  p.rank = 0;
  for (int d = 0; d < out.rank; ++d) {
    if (out.dim[d] == 1) continue;
    bool joins = p.rank > 0;
    for (int i = 0; i < NI; ++i) joins = joins && p.step[i][p.rank - 1] == out.dim[d] * step[i][d];
    if (!joins) p.dim[p.rank++] = 1;
    p.dim[p.rank - 1] *= out.dim[d];
    for (int i = 0; i < NI; ++i) p.step[i][p.rank - 1] = step[i][d];
  }
  p.count = out.count();
}

// Calls f(first output element, first element of each input, n, inner step of each input) for the output's elements
// [begin, end) in runs along the last dimension, short enough to stay in L1.
template <int NI, class F>
PBP_INLINE void for_each_run(const BroadcastPlan<NI>& p, int64_t begin, int64_t end, F f) {
  constexpr int64_t kRun = 1024;
  if (begin >= end) return;
  const int last = p.rank - 1;
  const int64_t width = p.rank ? p.dim[last] : 1;
  int64_t index[kMaxRank], at = begin % width, rest = begin / width;
  int64_t from[NI] = {}, inner[NI] = {};
  for (int i = 0; i < NI; ++i)
    if (p.rank) inner[i] = p.step[i][last];
  for (int d = last - 1; d >= 0; --d) {
    index[d] = rest % p.dim[d];
    rest /= p.dim[d];
    for (int i = 0; i < NI; ++i) from[i] += index[d] * p.step[i][d];
  }
  for (;;) {
    int64_t n = width - at < kRun ? width - at : kRun;
    if (end - begin < n) n = end - begin;
    int64_t x[NI];
    for (int i = 0; i < NI; ++i) x[i] = from[i] + at * inner[i];
    f(begin, x, n, inner);
    begin += n;
    at += n;
    if (begin >= end) return;
    if (at < width) continue;
    at = 0;
    for (int d = last - 1; d >= 0; --d) {
      for (int i = 0; i < NI; ++i) from[i] += p.step[i][d];
      if (++index[d] < p.dim[d]) break;
      index[d] = 0;
      for (int i = 0; i < NI; ++i) from[i] -= p.dim[d] * p.step[i][d];
    }
  }
}

// Inputs of one run: a broadcast one is read again and again from 16 copies of its number.
template <class T, int NI>
struct Operands {
  alignas(64) T same[NI][kLanes];
  const T* p[NI];
  int64_t step[NI];

  PBP_INLINE void open(int i, const T* x, int64_t inner) {
    p[i] = x;
    step[i] = inner;
    if (inner == 0) {
      Vec<T>(*x).store(same[i]);
      p[i] = same[i];
    }
  }
  PBP_INLINE Vec<T> at(int i, int64_t j) const { return Vec<T>::load(p[i] + j * step[i]); }
  PBP_INLINE Vec<T> at(int i, int64_t j, int64_t n) const { return Vec<T>::load(p[i] + j * step[i], n); }
};

// Shape rule and forward. An op has kForwardNs and `template <class T> static Vec<T> f(const Vec<T>* x)`.
template <class Op, int NI>
struct BroadcastForward : OpDefaults {
  static bool infer_forward(Infer& s, Cut& cut, uint32_t& local) {
    if (!s.expect_inputs(NI, NI)) return false;
    for (int i = 0; i < NI; ++i)
      if (!s.expect_float(i)) return false;
    Shape out;
    if (!broadcast_shape(s, out)) return false;
    s.out(out);
    auto& p = s.plan<BroadcastPlan<NI>>();
    join_dimensions(s, out, p);
    cut = cut_elements(out);
    p.grain = cut.grain;
    local = 0;
    for (int i = 0; i < NI; ++i)  // rows of the output need the same rows of this input only
      if (out.rank && s.in(i).rank == out.rank && s.in(i).dim[0] == out.dim[0]) local |= 1u << i;
    cut_phase(s, kForward, cut, scaled_ns(Op::kForwardNs), local);
    return true;
  }

  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<BroadcastPlan<NI>>();
    const int64_t end = t.end * p.grain < p.count ? t.end * p.grain : p.count;
    const auto run = [&c](int64_t o, const int64_t* from, int64_t n, const int64_t* inner) {
      Operands<T, NI> in;
      for (int i = 0; i < NI; ++i) in.open(i, c.x(i) + from[i], inner[i]);
      T* y = c.y() + o;
      Vec<T> x[NI];
      int64_t j = 0;
      for (; j + kLanes <= n; j += kLanes) {
#pragma GCC unroll 3
        for (int i = 0; i < NI; ++i) x[i] = in.at(i, j);
        Op::f(x).store(y + j);
      }
      if (j < n) {
#pragma GCC unroll 3
        for (int i = 0; i < NI; ++i) x[i] = in.at(i, j, n - j);
        Op::f(x).store(y + j, n - j);
      }
    };
    for_each_run(p, t.begin * p.grain, end, run);
  }
};

// Without a gradient.
template <class Op, int NI>
struct BroadcastTest : BroadcastForward<Op, NI> {
  static constexpr bool has_backward = false;
  static bool infer(Infer& s) {
    Cut cut;
    uint32_t local;
    return BroadcastForward<Op, NI>::infer_forward(s, cut, local);
  }
};

// With gradients. An op also has kBackwardNs (for each input); as bits of inputs kDiff, which get a gradient, kPasses,
// whose gradient is dy itself, and kReads, which gradients read; kReadsOut, whether they read the output; and
//   template <int I, class T> static Vec<T> d(const Vec<T>* x, Vec<T> y, Vec<T> dy)     the gradient of input I
template <class Op, int NI>
struct Broadcast : BroadcastForward<Op, NI> {
  static bool infer(Infer& s) {
    Cut cut;
    uint32_t local;
    if (!BroadcastForward<Op, NI>::infer_forward(s, cut, local)) return false;
    auto& p = s.plan<BroadcastPlan<NI>>();
    int64_t scratch = 0;
    double ns = 0;
    for (int i = 0; i < NI; ++i) {
      auto& in = p.input[i];
      if (Op::kReads >> i & 1) s.keep_in(i);
      in = {kNone, 0, {1, 1}, 0, -1, 0};
      if (!(Op::kDiff >> i & 1)) {
        s.no_gradient(i);
        continue;
      }
      const int64_t n = s.in(i).count();
      in.gather = n == p.count ? kSame : cut.rows && p.count && (local >> i & 1) ? kInRow : kAcross;
      if (in.gather == kInRow) in.row_outputs = n / cut.tasks;
      if (in.gather == kAcross) in.split = split_first(p.groups(i));
      if (in.gather != kSame && !(Op::kPasses >> i & 1)) {
        in.scratch = scratch;
        scratch += p.count;
      }
      if (in.split.blocks > 1) {
        in.partial = scratch;
        scratch += in.split.blocks * n;
      }
      ns += Op::kBackwardNs;
    }
    if (Op::kReadsOut) s.keep_out(0);
    cut_phase(s, kBackward, cut, scaled_ns(ns), local);
    int phase = 1;
    for (int i = 0; i < NI; ++i) {
      auto& in = p.input[i];
      if (in.gather != kAcross) continue;
      in.phase = phase;
      const int64_t n = s.in(i).count(), tasks = (n + kOutputsPerTask - 1) / kOutputsPerTask;
      const double whole = 0.1 * double(p.count);
      if (in.split.blocks > 1) s.phase(kBackward, in.split.blocks, whole / double(in.split.blocks)), ++phase;
      s.phase(kBackward, tasks, in.split.blocks > 1 ? double(in.split.blocks) * 2 : tasks ? whole / double(tasks) : 0);
      ++phase;
    }
    s.scratch(kBackward, scratch * int64_t(sizeof(double)));
    return true;
  }

  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    if (t.phase == 0)
      products(c, t);
    else
      sums(c, t);
  }

 private:
  // d(I) for a run, to `to`.
  template <int I, class T>
  static PBP_INLINE void product(const Ctx<T>& c, const Operands<T, NI>& in, int64_t o, int64_t n, T* to) {
    const T* dy = c.dy() + o;
    const T* y = Op::kReadsOut ? c.y() + o : nullptr;
    int64_t j = 0;
    Vec<T> x[NI];
    for (int i = 0; i < NI; ++i) x[i] = Vec<T>(T(0));
    for (; j + kLanes <= n; j += kLanes) {
#pragma GCC unroll 3
      for (int i = 0; i < NI; ++i)
        if (Op::kReads >> i & 1) x[i] = in.at(i, j);
      Op::template d<I>(x, Op::kReadsOut ? Vec<T>::load(y + j) : x[0], Vec<T>::load(dy + j)).store(to + j);
    }
    if (j < n) {
#pragma GCC unroll 3
      for (int i = 0; i < NI; ++i)
        if (Op::kReads >> i & 1) x[i] = in.at(i, j, n - j);
      const Vec<T> out = Op::kReadsOut ? Vec<T>::load(y + j, n - j) : x[0];
      Op::template d<I>(x, out, Vec<T>::load(dy + j, n - j)).store(to + j, n - j);
    }
  }

  template <class T>
  static void products(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<BroadcastPlan<NI>>();
    T* to[NI];
    for (int i = 0; i < NI; ++i) {
      const auto& in = p.input[i];
      to[i] = nullptr;
      if (in.gather != kNone && c.dx(i))
        to[i] = in.gather == kSame ? c.dx(i) : in.scratch >= 0 ? static_cast<T*>(c.scratch) + in.scratch : nullptr;
    }
    const int64_t end = t.end * p.grain < p.count ? t.end * p.grain : p.count;
    const auto run = [&c, &to](int64_t o, const int64_t* from, int64_t n, const int64_t* inner) {
      Operands<T, NI> in;
      for (int i = 0; i < NI; ++i)
        if (Op::kReads >> i & 1) in.open(i, c.x(i) + from[i], inner[i]);
      if constexpr ((Op::kDiff & 1) != 0)
        if (to[0]) product<0>(c, in, o, n, to[0] + o);
      if constexpr ((Op::kDiff & 2) != 0)
        if (to[1]) product<1>(c, in, o, n, to[1] + o);
      if constexpr ((Op::kDiff & 4) != 0)
        if (to[2]) product<2>(c, in, o, n, to[2] + o);
    };
    for_each_run(p, t.begin * p.grain, end, run);
    for (int i = 0; i < NI; ++i)
      if (p.input[i].gather == kInRow && c.dx(i))
        reduce_outputs(p.groups(i), summed(c, i), t.begin * p.input[i].row_outputs, t.end * p.input[i].row_outputs,
                       Plain<T, SumOf<T>>{c.dx(i), T(1)});
  }

  template <class T>
  static PBP_INLINE const T* summed(const Ctx<T>& c, int i) {
    const int64_t at = c.template planned<BroadcastPlan<NI>>().input[i].scratch;
    return at >= 0 ? static_cast<const T*>(c.scratch) + at : c.dy();
  }

  template <class T>
  static void sums(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<BroadcastPlan<NI>>();
    for (int i = 0; i < NI; ++i) {
      const auto& in = p.input[i];
      const int part = t.phase - in.phase;
      if (in.gather != kAcross || !c.dx(i) || part < 0 || part > (in.split.blocks > 1)) continue;
      const Groups g = p.groups(i);
      const T* x = summed(c, i);
      T* partial = static_cast<T*>(c.scratch) + in.partial;
      if (in.split.blocks > 1 && part == 0) {
        for (int64_t b = t.begin; b < t.end; ++b) {
          const int64_t first = b * in.split.block, stop = first + in.split.block;
          reduce_outputs(g.part(first, stop < g.size[0] ? stop : g.size[0]), x + first * g.x[0], 0, g.outputs,
                         Plain<T, SumOf<T>>{partial + b * g.outputs, T(1)});
        }
        continue;
      }
      const int64_t begin = t.begin * kOutputsPerTask;
      const int64_t end = t.end * kOutputsPerTask < g.outputs ? t.end * kOutputsPerTask : g.outputs;
      const Plain<T, SumOf<T>> to{c.dx(i), T(1)};
      if (in.split.blocks > 1)
        reduce_outputs(partial_groups(g, in.split), static_cast<const T*>(partial), begin, end, to);
      else
        reduce_outputs(g, x, begin, end, to);
    }
  }
};

}  // namespace
}  // namespace pbp
