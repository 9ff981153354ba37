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
    const double row = 0.2 * double(p.width) + 20;
    const int64_t blocks = ceil_div(p.count, p.block);
    if (p.rows)
      s.rows(kForward, x.dim[0], row * double(p.per_row), 1);
    else
      s.phase(kForward, 1, row);
    if (n > 1) {
      s.phase(kBackward, blocks, 2.5 * row * double(p.block));
      s.phase(kBackward, ceil_div(p.width, kChannelsPerTask), 0.2 * double(kChannelsPerTask * blocks));
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
    const int64_t n = p.width;
    const T* w = weight(c, 1);
    const T* b = weight(c, 2);
    const Vec<T> zero(T(0)), scale = Vec<T>(T(1)) / Vec<T>(T(n)), eps(static_cast<T>(p.eps));
    for (int64_t r = t.begin * p.per_row; r < t.end * p.per_row; ++r) {
      const T* x = c.x(0) + r * n;
      T* y = c.y() + r * n;
      Vec<T> mean = zero;
      if (kCentred) {
        mean = fold_row<SumOf<T>>(
            n, zero, [&](int64_t j, int64_t k) __attribute__((always_inline)) { return load_lanes(x + j, k); });
        mean = mean * scale;
        mean.store(c.kept(0) + r, 1);
      }
      const Vec<T> square = fold_row<SumOf<T>>(n, zero, [&](int64_t j, int64_t k) __attribute__((always_inline)) {
        const Vec<T> d = load_lanes(x + j, k) - mean;
        return d * d;
      });
      const Vec<T> rstd = Vec<T>(T(1)) / sqrt(square * scale + eps);
      rstd.store(c.kept(kCentred) + r, 1);
      each_lanes(0, n, [&](int64_t j, int64_t k) __attribute__((always_inline)) {
        const Vec<T> v = (load_lanes(x + j, k) - mean) * rstd * load_or(w, j, k, T(1));
        store_lanes(y + j, k, b ? v + load_lanes(b + j, k) : v);
      });
    }
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
      each_lanes(t.begin * kChannelsPerTask, end, [&](int64_t j, int64_t k) __attribute__((always_inline)) {
        Vec<T> sum(T(0));
        for (int64_t i = 0; i < blocks; ++i) sum = sum + Vec<T>::load(partial + (2 * i + which) * p.ld + j);
        store_lanes(to[which] + j, k, sum);
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

  // dx of rows [begin, end); their sums of dy h and dy, rows of p.ld padded with anything, where wanted.
  template <class T>
  static void rows_backward(const Ctx<T>& c, int64_t begin, int64_t end, T* sum_w, T* sum_b) {
    const auto& p = c.template planned<RowNormPlan>();
    const int64_t n = p.width;
    const T* w = weight(c, 1);
    const Vec<T> zero(T(0)), scale = Vec<T>(T(1)) / Vec<T>(T(n));
    if (sum_w) memset(sum_w, 0, size_t(p.ld) * sizeof(T));
    if (sum_b) memset(sum_b, 0, size_t(p.ld) * sizeof(T));
    for (int64_t r = begin; r < end; ++r) {
      const T *x = c.x(0) + r * n, *dy = c.dy() + r * n;
      const Vec<T> mean = kCentred ? Vec<T>(c.kept(0)[r]) : zero, rstd(c.kept(kCentred)[r]);
      if (T* const d_all = c.dx(0)) {
        T* dx = d_all + r * n;
        Vec<T> g_mean = zero, gh_mean = zero;
        each_lanes(0, n, [&](int64_t j, int64_t k) __attribute__((always_inline)) {
          const Vec<T> g = load_lanes(dy + j, k) * load_or(w, j, k, T(1)), h = (load_lanes(x + j, k) - mean) * rstd;
          if (kCentred) g_mean = g_mean + g;  // lanes beyond k have dy = 0
          gh_mean = fma(g, h, gh_mean);
        });
        g_mean = join_lanes<SumOf<T>>(g_mean) * scale;
        gh_mean = join_lanes<SumOf<T>>(gh_mean) * scale;
        each_lanes(0, n, [&](int64_t j, int64_t k) __attribute__((always_inline)) {
          const Vec<T> g = load_lanes(dy + j, k) * load_or(w, j, k, T(1)), h = (load_lanes(x + j, k) - mean) * rstd;
          const Vec<T> centred = kCentred ? g - g_mean : g;
          store_lanes(dx + j, k, (centred - h * gh_mean) * rstd);
        });
      }
      if (sum_w)
        each_lanes(0, n, [&](int64_t j, int64_t k) __attribute__((always_inline)) {
          const Vec<T> h = (load_lanes(x + j, k) - mean) * rstd;
          fma(load_lanes(dy + j, k), h, Vec<T>::load(sum_w + j)).store(sum_w + j);
        });
      if (sum_b)
        each_lanes(0, n, [&](int64_t j, int64_t k) __attribute__((always_inline)) {
          (Vec<T>::load(sum_b + j) + load_lanes(dy + j, k)).store(sum_b + j);
        });
    }
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
