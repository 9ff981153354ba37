// batch_norm, part of norms.cpp, and the few helpers both share.
#pragma once
#include "../kernels/export.h"
#include "../kernels/reduce.h"

namespace pbp {
namespace {

PBP_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
PBP_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
PBP_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

constexpr int64_t kChannelsPerTask = 64, kBlocks = 64;

// f(j, lanes) for j = begin, begin + 16, ... below end.
template <class F>
PBP_INLINE void each_lanes(int64_t begin, int64_t end, F f) {
  int64_t j = begin;
  for (; j + kLanes <= end; j += kLanes) f(j, int64_t(kLanes));
  if (j < end) f(j, end - j);
}
// p[j...], or a constant where there is no such parameter
template <class T>
PBP_INLINE Vec<T> load_or(const T* p, int64_t j, int64_t lanes, T otherwise) {
  return p ? load_lanes(p + j, lanes) : Vec<T>(otherwise);
}

struct BatchNormPlan {
  double eps, momentum;
  int64_t channels, run;  // x is (N, channels, run)
  int64_t count;          // elements of a channel
  Groups g;               // x with all but the channels reduced
  int64_t lead;           // length of the first reduced group: N, or N * run if there is but one channel
  int64_t per_lead;       // elements of a channel in one index of it
  int64_t block, blocks;  // of `lead`: statistics are taken block by block
  int weight, running;    // inputs: weight and bias, running mean and variance; 0: none
  bool batch;             // statistics of the batch, else the running ones
};

// Squares of distances from the reference.
template <class T>
struct SquaresOf {
  static constexpr bool kPair = false;
  static PBP_INLINE Vec<T> start() { return Vec<T>(T(0)); }
  static PBP_INLINE Vec<T> step(Vec<T> a, Vec<T> x, Vec<T> mean, Vec<T>) {
    const Vec<T> d = x - mean;
    return fma(d, d, a);
  }
  static PBP_INLINE Vec<T> join(Vec<T> a, Vec<T> b) { return a + b; }
};
// dy (x - mean), with x the companion of dy.
template <class T>
struct MomentsOf {
  static constexpr bool kPair = true;
  static PBP_INLINE Vec<T> start() { return Vec<T>(T(0)); }
  static PBP_INLINE Vec<T> step(Vec<T> a, Vec<T> dy, Vec<T> mean, Vec<T> x) { return fma(dy, x - mean, a); }
  static PBP_INLINE Vec<T> join(Vec<T> a, Vec<T> b) { return a + b; }
};

// Mean of each channel over a block, and the sum of squared distances from it.
template <class T>
struct BlockStatistics {
  T *mean, *squares;
  T count;
  template <class Unit>
  PBP_INLINE void run(const Unit& u) const {
    Vec<T> m[Unit::kVecs], v[Unit::kVecs];
    for (int w = 0; w < Unit::kVecs; ++w) m[w] = Vec<T>(T(0));
    u.template reduce<SumOf<T>>(m, v);
    for (int w = 0; w < Unit::kVecs; ++w) m[w] = v[w] / Vec<T>(count);
    u.template reduce<SquaresOf<T>>(m, v);
    u.store(mean, m);
    u.store(squares, v);
  }
};
// Sum of dy and of dy (x - mean) of each channel over a block.
template <class T>
struct BlockGradients {
  const T* mean;
  T *sum, *moment;
  template <class Unit>
  PBP_INLINE void run(const Unit& u) const {
    Vec<T> m[Unit::kVecs], v[Unit::kVecs];
    u.load(mean, m);
    u.template reduce<SumOf<T>>(m, v);
    u.store(sum, v);
    u.template reduce<MomentsOf<T>>(m, v);
    u.store(moment, v);
  }
};

// Each channel over batch and run: y = (x - mean) rstd w + b, rstd = (var + eps)^-1/2. In training the statistics are
// the batch's (var divided by n), and the new running ones are (1 - momentum) old + momentum batch (var divided by n -
// 1).
struct BatchNorm : OpDefaults {
  static constexpr const char* name = "batch_norm";

  static bool infer(Infer& s) {
    auto& p = s.plan<BatchNormPlan>();
    const bool affine = s.i("affine", 0) != 0, frozen = s.i("frozen", 0) != 0;
    const int n_in = s.n_in(), plain = affine ? 3 : 1;
    if (n_in != plain && n_in != plain + 2)
      return s.fail("expects %d inputs, or %d with running statistics, got %d", plain, plain + 2, n_in);
    const Shape& x = s.in(0);
    if (x.rank < 2)
      return s.fail("expects shape (batch, channels) or (batch, channels, length), but %s gives %s", s.who(0),
                    s.text(x));
    p.eps = s.f("eps", 1e-5);
    p.momentum = s.f("momentum", 0.1);
    if (!(p.eps >= 0)) return s.fail("eps must be 0 or more, got %g", p.eps);
    if (!(p.momentum >= 0 && p.momentum <= 1)) return s.fail("momentum must be from 0 to 1, got %g", p.momentum);
    p.weight = affine ? 1 : 0;
    p.running = n_in > plain ? plain : 0;
    p.batch = s.training() && !frozen;
    if (!p.batch && !p.running) return s.fail("needs running statistics unless it takes the batch's");
    Shape channel;
    channel.push(x.dim[1]);
    const char* const what[] = {"weight", "bias", "running mean", "running variance"};
    for (int k = 0; k < n_in; ++k) {
      if (!s.expect_float(k)) return false;
      if (k && !s.in(k).same(channel))
        return s.fail("%s expects shape %s for the channels of %s, but %s gives %s", what[k - 1 + (affine ? 0 : 2)],
                      s.text(channel), s.text(x), s.who(k), s.text(s.in(k)));
    }
    p.channels = x.dim[1];
    p.run = x.count_from(2);
    p.count = x.dim[0] * p.run;
    if (p.batch && p.count < 2)
      return s.fail("needs more than one value for each channel in training, but %s gives %s", s.who(0), s.text(x));
    p.g = Groups();
    p.g.push(x.dim[0], false);
    p.g.push(p.channels, true);
    p.g.push(p.run, false);
    p.g.finish();
    p.lead = p.g.reduced_first() ? p.g.size[0] : 1;
    p.per_lead = p.lead ? p.count / p.lead : 0;
    const int64_t per_index = p.channels * p.per_lead;
    p.block = ceil_div(p.lead, kBlocks);
    if (per_index && p.block < ceil_div(kSplitElements, per_index)) p.block = ceil_div(kSplitElements, per_index);
    if (p.block < 1) p.block = 1;
    p.blocks = ceil_div(p.lead, p.block);

    s.out_like(0);
    s.keep_in(0);
    if (affine) s.keep_in(1);
    if (p.running) {
      s.no_gradient(p.running);
      s.no_gradient(p.running + 1);
    }
    const int64_t parts = ceil_div(p.channels, kChannelsPerTask);
    const double row = 0.2 * double(x.count_from(1)) + 5;
    const double part = parts && p.blocks ? row * double(x.dim[0]) / double(p.blocks * parts) : 0;
    const int64_t partial = 2 * p.blocks * p.channels * int64_t(sizeof(double));
    if (p.batch) {
      if (p.running) {
        s.out(channel);
        s.out(channel);
        s.constant_out(1);
        s.constant_out(2);
      }
      s.save(channel);  // mean
      s.save(channel);  // rstd
      s.phase(kForward, p.blocks * parts, 2 * part);
      s.phase(kForward, parts, 0.5 * double(kChannelsPerTask * p.blocks));
      s.scratch(kForward, partial);
    } else {
      s.keep_in(p.running);
      s.keep_in(p.running + 1);
      s.local(kForward, p.channels * int64_t(sizeof(double)));  // rstd
    }
    s.rows(kForward, x.dim[0], row, 1);
    s.phase(kBackward, p.blocks * parts, 2 * part);
    s.phase(kBackward, parts, 0.5 * double(kChannelsPerTask * p.blocks));
    s.rows(kBackward, x.dim[0], row, 1);
    s.scratch(kBackward, partial + 3 * p.channels * int64_t(sizeof(double)));
    return true;
  }

  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<BatchNormPlan>();
    if (!p.batch) {
      T* const rstd = static_cast<T*>(t.local);
      each_lanes(0, p.channels, [&](int64_t j, int64_t k) __attribute__((always_inline)) {
        store_lanes(rstd + j, k, rstd_of(load_lanes(c.x(p.running + 1) + j, k), p));
      });
      return normalise(c, t, c.x(p.running), rstd);
    }
    T* const partial = static_cast<T*>(c.scratch);
    if (t.phase == 0)
      each_block(p, t, [&](const Groups& g, int64_t offset, int64_t block, int64_t length, int64_t begin, int64_t end) {
        T* const mean = partial + 2 * block * p.channels;
        reduce_outputs(g, c.x(0) + offset, begin, end,
                       BlockStatistics<T>{mean, mean + p.channels, T(length * p.per_lead)});
      });
    else if (t.phase == 1)
      join_statistics(c, t, partial);
    else
      normalise(c, t, c.kept(0), c.kept(1));
  }

  // With h = (x - mean) rstd:  db = sum dy,  dw = sum dy h,  dx = w rstd (dy - mean(dy) - h mean(dy h)); with running
  // statistics, which are constants, dx = w rstd dy.
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<BatchNormPlan>();
    const T* const mean = p.batch ? c.kept(0) : c.x(p.running);
    T* const partial = static_cast<T*>(c.scratch);
    T* const slope =
        partial + 2 * p.blocks * p.channels;  // of dx in dy, then what is taken off: mean(dy), and per (x - mean)
    const bool sums = p.batch || (p.weight && (c.dx(1) || c.dx(2)));
    if (t.phase == 0) {
      if (!sums) return;
      each_block(p, t, [&](const Groups& g, int64_t offset, int64_t block, int64_t, int64_t begin, int64_t end) {
        T* const sum = partial + 2 * block * p.channels;
        reduce_outputs(g, c.dy() + offset, begin, end, BlockGradients<T>{mean, sum, sum + p.channels}, c.x(0) + offset);
      });
    } else if (t.phase == 1) {
      each_lanes(t.begin * kChannelsPerTask, least(t.end * kChannelsPerTask, p.channels), [&](int64_t j, int64_t k) {
        Vec<T> sum(T(0)), moment(T(0));
        for (int64_t i = 0; sums && i < p.blocks; ++i) {
          sum = sum + load_lanes(partial + 2 * i * p.channels + j, k);
          moment = moment + load_lanes(partial + (2 * i + 1) * p.channels + j, k);
        }
        const Vec<T> rstd = p.batch ? load_lanes(c.kept(1) + j, k) : rstd_of(load_lanes(c.x(p.running + 1) + j, k), p);
        if (p.weight && c.dx(1)) store_lanes(c.dx(1) + j, k, moment * rstd);
        if (p.weight && c.dx(2)) store_lanes(c.dx(2) + j, k, sum);
        const Vec<T> count(T(p.count));
        store_lanes(slope + j, k, load_or(p.weight ? c.x(1) : nullptr, j, k, T(1)) * rstd);
        store_lanes(slope + p.channels + j, k, sum / count);
        store_lanes(slope + 2 * p.channels + j, k, moment / count * rstd * rstd);
      });
    } else if (T* const dx = c.dx(0)) {
      const T *x = c.x(0), *dy = c.dy(), *taken = slope + p.channels, *per_x = taken + p.channels;
      each_run<T>(p, t, [&](int64_t e, int64_t k, auto of) __attribute__((always_inline)) {
        Vec<T> v = load_lanes(dy + e, k);
        if (p.batch) v = v - of(taken) - (load_lanes(x + e, k) - of(mean)) * of(per_x);
        store_lanes(dx + e, k, v * of(slope));
      });
    }
  }

 private:
  template <class T>
  static PBP_INLINE Vec<T> rstd_of(Vec<T> var, const BatchNormPlan& p) {
    return Vec<T>(T(1)) / sqrt(var + Vec<T>(T(p.eps)));
  }

  // visit(groups, offset in x, block, its length, first and last channel) for tasks numbered (block, part of the
  // channels)
  template <class Visit>
  static PBP_INLINE void each_block(const BatchNormPlan& p, const Task& t, Visit visit) {
    const int64_t parts = ceil_div(p.channels, kChannelsPerTask);
    for (int64_t i = t.begin; i < t.end; ++i) {
      const int64_t block = i / parts, channel = i % parts * kChannelsPerTask;
      const int64_t first = block * p.block, last = least(first + p.block, p.lead);
      visit(p.blocks > 1 ? p.g.part(first, last) : p.g, p.blocks > 1 ? first * p.g.x[0] : 0, block, last - first,
            channel, least(channel + kChannelsPerTask, p.channels));
    }
  }

  // The blocks' statistics joined in order by Chan's formula: with d the distance between the two means,
  // mean += d n_b / n,  squares += squares_b + d^2 n_a n_b / n.
  template <class T>
  static PBP_INLINE void join_statistics(const Ctx<T>& c, const Task& t, const T* partial) {
    const auto& p = c.template planned<BatchNormPlan>();
    each_lanes(t.begin * kChannelsPerTask, least(t.end * kChannelsPerTask, p.channels), [&](int64_t j, int64_t k) {
      Vec<T> mean(T(0)), squares(T(0));
      for (int64_t i = 0; i < p.blocks; ++i) {
        const int64_t before = i * p.block * p.per_lead, now = least((i + 1) * p.block, p.lead) * p.per_lead;
        const double share = double(now - before) / double(now);
        const Vec<T> d = load_lanes(partial + 2 * i * p.channels + j, k) - mean;
        mean = fma(d, Vec<T>(T(share)), mean);
        squares = squares + load_lanes(partial + (2 * i + 1) * p.channels + j, k);
        squares = fma(d * d, Vec<T>(T(double(before) * share)), squares);
      }
      store_lanes(c.kept(0) + j, k, mean);
      store_lanes(c.kept(1) + j, k, rstd_of(squares / Vec<T>(T(p.count)), p));
      if (!p.running) return;
      const Vec<T> fresh(T(p.momentum)), old(T(1 - p.momentum)), unbiased = squares / Vec<T>(T(p.count - 1));
      store_lanes(c.y(1) + j, k, fma(fresh, mean, old * load_lanes(c.x(p.running) + j, k)));
      store_lanes(c.y(2) + j, k, fma(fresh, unbiased, old * load_lanes(c.x(p.running + 1) + j, k)));
    });
  }

  // f(element, lanes, of) over rows [t.begin, t.end): of(v) gives, lane by lane, the channel's number in v (channels).
  template <class T, class F>
  static PBP_INLINE void each_run(const BatchNormPlan& p, const Task& t, F f) {
    if (p.run == 1) {
      for (int64_t r = t.begin; r < t.end; ++r)
        each_lanes(0, p.channels, [&](int64_t j, int64_t k) __attribute__((always_inline)) {
          f(r * p.channels + j, k, [=](const T* v) __attribute__((always_inline)) { return load_lanes(v + j, k); });
        });
      return;
    }
    for (int64_t i = t.begin * p.channels; i < t.end * p.channels; ++i) {
      const int64_t channel = i % p.channels;
      each_lanes(0, p.run, [&](int64_t j, int64_t k) __attribute__((always_inline)) {
        f(i * p.run + j, k, [=](const T* v) __attribute__((always_inline)) { return Vec<T>(v[channel]); });
      });
    }
  }

  template <class T>
  static PBP_INLINE void normalise(const Ctx<T>& c, const Task& t, const T* mean, const T* rstd) {
    const auto& p = c.template planned<BatchNormPlan>();
    const T* x = c.x(0);
    T* y = c.y();
    const T *w = p.weight ? c.x(1) : nullptr, *b = p.weight ? c.x(2) : nullptr;
    each_run<T>(p, t, [&](int64_t e, int64_t k, auto of) __attribute__((always_inline)) {
      Vec<T> v = (load_lanes(x + e, k) - of(mean)) * of(rstd);
      if (w) v = fma(v, of(w), of(b));
      store_lanes(y + e, k, v);
    });
  }
};

}  // namespace
}  // namespace pbp
