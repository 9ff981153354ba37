// Scores of single rows, 0 or 1, for counting how often a classifier is right. No gradients.
#include "../kernels/export.h"
#include "../kernels/vec.h"

namespace pbp {
namespace {

struct TopKPlan {
  int64_t k;
  bool one_hot;  // targets are rows of probabilities: the label is the first of the largest
};

// y[i] = 1 if fewer than k classes come before class labels[i]: a class comes before another with a larger score, or
// with an equal one and a smaller number. A NaN score of the label is never right; NaNs elsewhere come before
// everything.
struct TopKCorrect : OpDefaults {
  static constexpr const char* name = "top_k_correct";
  static constexpr bool has_backward = false;
  static bool infer(Infer& s) {
    if (!s.expect_inputs(2, 2) || !s.expect_float(0)) return false;
    const Shape &x = s.in(0), &labels = s.in(1);
    if (x.rank != 2) return s.fail("expects scores of shape (rows, classes), but %s gives %s", s.who(0), s.text(x));
    auto& p = s.plan<TopKPlan>();
    p.one_hot = !s.is_int(1) && labels.same(x);
    if (!p.one_hot && (labels.rank != 1 || labels.dim[0] != x.dim[0]))
      return s.fail("expects %lld labels, but %s has shape %s", (long long)x.dim[0], s.who(1), s.text(labels));
    p.k = s.i("k", 1);
    if (p.k < 1 || p.k > x.dim[1])
      return s.fail("k must be from 1 to the number of classes, %lld, got %lld", (long long)x.dim[1], (long long)p.k);
    if (!p.one_hot && !s.expect_int(1, 0, x.dim[1], "labels")) return false;
    Shape rows;
    rows.push(x.dim[0]);
    s.out(rows);
    s.no_gradient(0);
    s.no_gradient(1);
    s.rows(kForward, x.dim[0], 0.1 * double(x.dim[1]) + 5, 3);
    return true;
  }
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<TopKPlan>();
    const int64_t classes = c.in[0].dim(1), k = p.k;
    for (int64_t i = t.begin; i < t.end; ++i) {
      const T* x = c.x(0) + i * classes;
      const int64_t label = p.one_hot ? first_largest(c.x(1) + i * classes, classes) : c.ids(1)[i];
      const T score = x[label];
      // ~(x <= score) holds for larger scores and for NaN, ~(x < score) for equal ones as well.
      int64_t before = 0;
      for (int64_t j = 0; j < label; ++j) before += !(x[j] < score);
      for (int64_t j = label + 1; j < classes; ++j) before += !(x[j] <= score);
      c.y()[i] = score == score && before < k ? T(1) : T(0);
    }
  }

 private:
  template <class T>
  static PBP_INLINE int64_t first_largest(const T* x, int64_t n) {
    int64_t at = 0;
    for (int64_t j = 1; j < n; ++j)
      if (x[j] > x[at]) at = j;
    return at;
  }
};

struct BinaryPlan {
  double threshold;
  bool integer;  // targets
};

// y[i] = 1 if (logits[i] > threshold) == (target[i] > 0.5); a NaN is never right.
struct BinaryCorrect : OpDefaults {
  static constexpr const char* name = "binary_correct";
  static constexpr bool has_backward = false;
  static bool infer(Infer& s) {
    if (!s.expect_inputs(2, 2) || !s.expect_float(0)) return false;
    const Shape &x = s.in(0), &target = s.in(1);
    for (int i = 0; i < 2; ++i) {
      const Shape& v = s.in(i);
      if (!(v.rank == 1 || (v.rank == 2 && v.dim[1] == 1)))
        return s.fail("expects %s of shape (rows,) or (rows, 1), but %s gives %s", i ? "targets" : "logits", s.who(i),
                      s.text(v));
    }
    if (x.dim[0] != target.dim[0])
      return s.fail("expects one target a row: %s gives %s, but %s gives %s", s.who(0), s.text(x), s.who(1),
                    s.text(target));
    if (s.is_int(1) && !s.expect_int(1, 0, 2, "targets")) return false;
    auto& p = s.plan<BinaryPlan>();
    p.threshold = s.f("threshold", 0);
    p.integer = s.is_int(1);
    Shape y;
    y.push(x.dim[0]);
    s.out(y);
    s.no_gradient(0);
    s.no_gradient(1);
    s.rows(kForward, x.dim[0], 1, 3);
    return true;
  }
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<BinaryPlan>();
    const T threshold = T(p.threshold);
    for (int64_t i = t.begin; i < t.end; ++i) {
      const T x = c.x(0)[i], target = p.integer ? T(c.ids(1)[i]) : c.x(1)[i];
      const bool right = (x > threshold) == (target > T(0.5));
      c.y()[i] = right && x == x && target == target ? T(1) : T(0);
    }
  }
};

constexpr OpEntry kOps[] = {pbp_op<TopKCorrect>(), pbp_op<BinaryCorrect>()};

}  // namespace
}  // namespace pbp

PBP_EXPORT(scores, kOps)
