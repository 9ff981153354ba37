// layer_norm and rms_norm; batch_norm from its own page.
#include "../kernels/export.h"
#include "batch_norm.h"

namespace pbp {
namespace {

struct RowNormPlan {
  double eps;
  int64_t width;    // elements of a row
  int64_t per_row;  // rows in one index of dimension 0
  int64_t count;    // rows
  int64_t block;    // rows whose parameter gradients are summed together
  int64_t ld;       // distance between rows of partial sums
  int inputs;
  bool rows;
};

// Narrow rows are taken several together: one row's passes wait for each other, its neighbours' fill the gaps, and the
// parameters and their gradients are read once for all. A row's arithmetic is the same alone. Wider ones do not: L1
// would not hold x, dy and dx of all, and memory is read best in one stream.
constexpr int64_t kWidthOfFour = 256, kWidthOfTwo = 768;
constexpr int kStrip = 4;  // vectors of columns summed over the blocks at once

// Each row of the last `dims` dimensions by itself: y = (x - mean) rstd w + b with rstd = (var + eps)^-1/2, or, without
// centring (rms_norm), y = x rstd w with rstd = (mean x^2 + eps)^-1/2.
template <bool kCentred>
struct RowNorm : OpDefaults {
  static bool infer(Infer& s) {
    if (!s.expect_inputs(1, kCentred ? 3 : 2)) return false;
    const Shape& x = s.in(0);
    const int64_t dims = s.i("dims", 1);
    if (dims < 1 || dims > x.rank)
      return s.fail("cannot normalise the last %lld dimensions of %s of shape %s", (long long)dims, s.who(0),
                    s.text(x));
    auto& p = s.plan<RowNormPlan>();
    p.eps = s.f("eps", 1e-5);
    if (!(p.eps >= 0)) return s.fail("eps must be 0 or more, got %g", p.eps);
    Shape normal;
    for (int i = int(x.rank - dims); i < x.rank; ++i) normal.push(x.dim[i]);
    const int n = p.inputs = s.n_in();
    for (int k = 0; k < n; ++k) {
      if (!s.expect_float(k)) return false;
      if (k && !s.in(k).same(normal))
        return s.fail("%s expects shape %s, but %s gives %s", k == 1 ? "weight" : "bias", s.text(normal), s.who(k),
                      s.text(s.in(k)));
    }
    p.width = normal.count();
    p.count = 1;
    for (int i = 0; i < x.rank - dims; ++i) p.count *= x.dim[i];
    p.rows = dims < x.rank;
    p.per_row = p.rows && x.dim[0] ? p.count / x.dim[0] : 1;
    p.block = ceil_div(p.count, kBlocks) > 4 ? ceil_div(p.count, kBlocks) : 4;
    p.ld = round_up(p.width, kLanes);
    s.out_like(0);
    s.keep_in(0);
    if (n > 1) s.keep_in(1);
    Shape per_row;
    per_row.push(p.rows ? x.dim[0] : 1);
    per_row.push(p.per_row);
    if (kCentred) s.save(per_row);  // mean
    s.save(per_row);                // rstd
    const double row = 0.15 * double(p.width) + 10;
    const int64_t blocks = ceil_div(p.count, p.block);
    if (p.rows)
      s.rows(kForward, x.dim[0], row * double(p.per_row), 1);
    else
      s.phase(kForward, 1, row);
    if (n > 1) {
      s.phase(kBackward, blocks, 1.7 * row * double(p.block));
      s.phase(kBackward, ceil_div(p.width, kChannelsPerTask), 0.1 * double(kChannelsPerTask * blocks));
      s.scratch(kBackward, 2 * blocks * p.ld * int64_t(sizeof(double)));
    } else if (p.rows) {
      s.rows(kBackward, x.dim[0], 1.5 * row * double(p.per_row), 1);
    } else {
      s.phase(kBackward, 1, 1.5 * row);
    }
    return true;
  }

  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<RowNormPlan>();
    int64_t r = t.begin * p.per_row;
    const int64_t end = t.end * p.per_row;
    if (p.width <= kWidthOfFour)
      for (; r + 4 <= end; r += 4) normalise<4>(c, r);
    if (p.width <= kWidthOfTwo)
      for (; r + 2 <= end; r += 2) normalise<2>(c, r);
    for (; r < end; ++r) normalise<1>(c, r);
  }

  // With h = (x - mean) rstd and g = dy w:  dx = rstd (g - mean(g) - h mean(g h)),  dw = sum of dy h, db = sum of dy
  // over the rows; rms_norm lacks mean(g) and db.
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<RowNormPlan>();
    T* const d_weight = gradient(c, 1);
    T* const d_bias = gradient(c, 2);
    T* const partial = static_cast<T*>(c.scratch);
    const bool affine = weight(c, 1) != nullptr;
    if (!affine) return rows_backward<T>(c, t.begin * p.per_row, t.end * p.per_row, nullptr, nullptr);
    if (t.phase == 0) {
      for (int64_t i = t.begin; i < t.end; ++i) {
        T* sums = partial + 2 * i * p.ld;
        rows_backward(c, i * p.block, least((i + 1) * p.block, p.count), d_weight ? sums : nullptr,
                      d_bias ? sums + p.ld : nullptr);
      }
      return;
    }
    const int64_t end = least(t.end * kChannelsPerTask, p.width), blocks = ceil_div(p.count, p.block);
    T* const to[2] = {d_weight, d_bias};
    for (int which = 0; which < 2; ++which) {
      if (!to[which]) continue;
      int64_t j = t.begin * kChannelsPerTask;
      for (; j + kStrip * kLanes <= end; j += kStrip * kLanes)
        sum_blocks<kStrip>(partial, which, blocks, p.ld, j, kLanes, to[which]);
      each_lanes(j, end, [&](int64_t i, int64_t k) __attribute__((always_inline)) {
        sum_blocks<1>(partial, which, blocks, p.ld, i, k, to[which]);
      });
    }
  }

 private:
  template <class T>
  static PBP_INLINE const T* weight(const Ctx<T>& c, int i) {
    const auto& p = c.template planned<RowNormPlan>();
    return i < p.inputs ? c.x(i) : nullptr;
  }
  template <class T>
  static PBP_INLINE T* gradient(const Ctx<T>& c, int i) {
    const auto& p = c.template planned<RowNormPlan>();
    return i < p.inputs ? c.dx(i) : nullptr;
  }

  // Rows [r, r + R) of the output.
  template <int R, class T>
  static void normalise(const Ctx<T>& c, int64_t r) {
    const auto& p = c.template planned<RowNormPlan>();
    const int64_t n = p.width;
    const T *const w = weight(c, 1), *const b = weight(c, 2), *const x = c.x(0) + r * n;
    T* const y = c.y() + r * n;
    const Vec<T> zero(T(0)), scale = Vec<T>(T(1)) / Vec<T>(T(n)), eps(static_cast<T>(p.eps));
    Vec<T> mean[R], rstd[R];
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) {
      mean[i] = zero;
      if (!kCentred) continue;
      mean[i] = fold_row<SumOf<T>>(
          n, zero, [&](int64_t j, int64_t k) __attribute__((always_inline)) { return load_lanes(x + i * n + j, k); });
      mean[i] = mean[i] * scale;
      mean[i].store(c.kept(0) + r + i, 1);
    }
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) {
      const Vec<T> m = mean[i];
      const Vec<T> square = fold_row<SumOf<T>>(n, zero, [&](int64_t j, int64_t k) __attribute__((always_inline)) {
        const Vec<T> d = load_lanes(x + i * n + j, k) - m;
        return d * d;
      });
      rstd[i] = Vec<T>(T(1)) / sqrt(square * scale + eps);
      rstd[i].store(c.kept(kCentred) + r + i, 1);
    }
    each_lanes(0, n, [&](int64_t j, int64_t k) __attribute__((always_inline)) {
      const Vec<T> wj = load_or(w, j, k, T(1)), bj = load_or(b, j, k, T(0));
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) {
        const Vec<T> h = (load_lanes(x + i * n + j, k) - mean[i]) * rstd[i];
        store_lanes(y + i * n + j, k, b ? fma(h, wj, bj) : h * wj);
      }
    });
  }

  // dx of rows [begin, end); their sums of dy h and dy, rows of p.ld padded with anything, where wanted.
  template <class T>
  static void rows_backward(const Ctx<T>& c, int64_t begin, int64_t end, T* sum_w, T* sum_b) {
    const auto& p = c.template planned<RowNormPlan>();
    if (sum_w) memset(sum_w, 0, size_t(p.ld) * sizeof(T));
    if (sum_b) memset(sum_b, 0, size_t(p.ld) * sizeof(T));
    int64_t r = begin;
    if (p.width <= kWidthOfFour)
      for (; r + 4 <= end; r += 4) some_backward<4>(c, r, sum_w, sum_b);
    if (p.width <= kWidthOfTwo)
      for (; r + 2 <= end; r += 2) some_backward<2>(c, r, sum_w, sum_b);
    for (; r < end; ++r) some_backward<1>(c, r, sum_w, sum_b);
  }

  // Rows [r, r + R), added to the sums.
  template <int R, class T>
  static void some_backward(const Ctx<T>& c, int64_t r, T* sum_w, T* sum_b) {
    const auto& p = c.template planned<RowNormPlan>();
    const int64_t n = p.width;
    const T *const w = weight(c, 1), *const x = c.x(0) + r * n, *const dy = c.dy() + r * n;
    T* const dx = c.dx(0) ? c.dx(0) + r * n : nullptr;
    const Vec<T> zero(T(0)), scale = Vec<T>(T(1)) / Vec<T>(T(n));
    Vec<T> mean[R], rstd[R], g_mean[R], gh_mean[R];
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) {
      mean[i] = kCentred ? Vec<T>(c.kept(0)[r + i]) : zero;
      rstd[i] = Vec<T>(c.kept(kCentred)[r + i]);
      g_mean[i] = gh_mean[i] = zero;
    }
    if (dx) {
      each_lanes(0, n, [&](int64_t j, int64_t k) __attribute__((always_inline)) {
        const Vec<T> wj = load_or(w, j, k, T(1));
#pragma GCC unroll 4
        for (int i = 0; i < R; ++i) {
          const Vec<T> g = load_lanes(dy + i * n + j, k) * wj;  // lanes beyond k have dy = 0
          const Vec<T> v = load_lanes(x + i * n + j, k);
          if (kCentred) g_mean[i] = g_mean[i] + g;
          gh_mean[i] = fma(g, kCentred ? v - mean[i] : v, gh_mean[i]);
        }
      });
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) {
        if (kCentred) g_mean[i] = join_lanes<SumOf<T>>(g_mean[i]) * scale;
        gh_mean[i] = join_lanes<SumOf<T>>(gh_mean[i]) * (rstd[i] * scale);
      }
    }
    each_lanes(0, n, [&](int64_t j, int64_t k) __attribute__((always_inline)) {
      const Vec<T> wj = load_or(w, j, k, T(1));
      Vec<T> sw = sum_w ? Vec<T>::load(sum_w + j) : zero, sb = sum_b ? Vec<T>::load(sum_b + j) : zero;
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) {
        const Vec<T> d = load_lanes(dy + i * n + j, k), v = load_lanes(x + i * n + j, k);
        const Vec<T> h = (kCentred ? v - mean[i] : v) * rstd[i];
        sw = fma(d, h, sw);
        sb = sb + d;
        if (!dx) continue;
        const Vec<T> g = kCentred ? d * wj - g_mean[i] : d * wj;
        store_lanes(dx + i * n + j, k, (g - h * gh_mean[i]) * rstd[i]);
      }
      if (sum_w) sw.store(sum_w + j);
      if (sum_b) sb.store(sum_b + j);
    });
  }

  // The blocks' partial sums of columns [j, j + 16 S), of whose last vector k are there. Several vectors at once: one
  // would wait for its additions.
  template <int S, class T>
  static PBP_INLINE void sum_blocks(const T* partial, int which, int64_t blocks, int64_t ld, int64_t j, int64_t k,
                                    T* to) {
    Vec<T> sum[S];
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) sum[s] = Vec<T>(T(0));
    for (int64_t i = 0; i < blocks; ++i) {
#pragma GCC unroll 4
      for (int s = 0; s < S; ++s) sum[s] = sum[s] + Vec<T>::load(partial + (2 * i + which) * ld + j + s * kLanes);
    }
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) store_lanes(to + j + s * kLanes, s + 1 < S ? int64_t(kLanes) : k, sum[s]);
  }
};
struct LayerNorm : RowNorm<true> {
  static constexpr const char* name = "layer_norm";
};
struct RmsNorm : RowNorm<false> {
  static constexpr const char* name = "rms_norm";
};

constexpr OpEntry kOps[] = {pbp_op<LayerNorm>(), pbp_op<RmsNorm>(), pbp_op<BatchNorm>()};

}  // namespace
}  // namespace pbp

PBP_EXPORT(norms, kOps)
