// Functions of two inputs, and where(cond, a, b), under NumPy's broadcasting.
#include "../kernels/broadcast.h"
#include "../kernels/math.h"

namespace pbp {
namespace {

struct Add : Broadcast<Add, 2> {
  static constexpr const char* name = "add";
  static constexpr double kForwardNs = 0.10, kBackwardNs = 0.08;
  static constexpr uint32_t kDiff = 3, kPasses = 3, kReads = 0;
  static constexpr bool kReadsOut = false;
  template <class T>
  static PBP_INLINE Vec<T> f(const Vec<T>* x) {
    return x[0] + x[1];
  }
  template <int I, class T>
  static PBP_INLINE Vec<T> d(const Vec<T>*, Vec<T>, Vec<T> dy) {
    return dy;
  }
};

struct Sub : Broadcast<Sub, 2> {
  static constexpr const char* name = "sub";
  static constexpr double kForwardNs = 0.10, kBackwardNs = 0.08;
  static constexpr uint32_t kDiff = 3, kPasses = 1, kReads = 0;
  static constexpr bool kReadsOut = false;
  template <class T>
  static PBP_INLINE Vec<T> f(const Vec<T>* x) {
    return x[0] - x[1];
  }
  template <int I, class T>
  static PBP_INLINE Vec<T> d(const Vec<T>*, Vec<T>, Vec<T> dy) {
    return I == 0 ? dy : -dy;
  }
};

struct Mul : Broadcast<Mul, 2> {
  static constexpr const char* name = "mul";
  static constexpr double kForwardNs = 0.10, kBackwardNs = 0.10;
  static constexpr uint32_t kDiff = 3, kPasses = 0, kReads = 3;
  static constexpr bool kReadsOut = false;
  template <class T>
  static PBP_INLINE Vec<T> f(const Vec<T>* x) {
    return x[0] * x[1];
  }
  template <int I, class T>
  static PBP_INLINE Vec<T> d(const Vec<T>* x, Vec<T>, Vec<T> dy) {
    return dy * x[1 - I];
  }
};

// da = dy / b, db = -dy a / b^2
struct Div : Broadcast<Div, 2> {
  static constexpr const char* name = "div";
  static constexpr double kForwardNs = 0.17, kBackwardNs = 0.30;
  static constexpr uint32_t kDiff = 3, kPasses = 0, kReads = 3;
  static constexpr bool kReadsOut = false;
  template <class T>
  static PBP_INLINE Vec<T> f(const Vec<T>* x) {
    return x[0] / x[1];
  }
  template <int I, class T>
  static PBP_INLINE Vec<T> d(const Vec<T>* x, Vec<T>, Vec<T> dy) {
    return I == 0 ? dy / x[1] : -dy * (x[0] / x[1]) / x[1];
  }
};

// a^b; da = dy b a^(b-1), and 0 for b = 0; db = dy y log(a), and 0 for a = 0, b >= 0
struct Pow : Broadcast<Pow, 2> {
  static constexpr const char* name = "pow";
  static constexpr double kForwardNs = 1.60, kBackwardNs = 1.20;
  static constexpr uint32_t kDiff = 3, kPasses = 0, kReads = 3;
  static constexpr bool kReadsOut = true;
  template <class T>
  static PBP_INLINE Vec<T> f(const Vec<T>* x) {
    return pow(x[0], x[1]);
  }
  template <int I, class T>
  static PBP_INLINE Vec<T> d(const Vec<T>* x, Vec<T> y, Vec<T> dy) {
    const Vec<T> a = x[0], b = x[1], zero(0);
    if (I == 0) return select(b == zero, zero, dy * b * pow(a, b - Vec<T>(1)));
    return select((a == zero) & (b >= zero), zero, dy * y * log(a));
  }
};

// dy to the larger one, half of it to each of two equal ones.
template <bool kLarger>
struct Extreme : Broadcast<Extreme<kLarger>, 2> {
  static constexpr const char* name = kLarger ? "maximum" : "minimum";
  static constexpr double kForwardNs = 0.10, kBackwardNs = 0.12;
  static constexpr uint32_t kDiff = 3, kPasses = 0, kReads = 3;
  static constexpr bool kReadsOut = false;
  template <class T>
  static PBP_INLINE Vec<T> f(const Vec<T>* x) {
    return kLarger ? nan_max(x[0], x[1]) : nan_min(x[0], x[1]);
  }
  template <int I, class T>
  static PBP_INLINE Vec<T> d(const Vec<T>* x, Vec<T>, Vec<T> dy) {
    const Vec<T> mine = x[I], other = x[1 - I];
    const Vec<T> tie = select(mine == other, dy * Vec<T>(T(0.5)), Vec<T>(0));
    return select(kLarger ? mine > other : mine < other, dy, tie);
  }
};

// cond (0 or 1) ? a : b
struct Where : Broadcast<Where, 3> {
  static constexpr const char* name = "where";
  static constexpr double kForwardNs = 0.12, kBackwardNs = 0.10;
  static constexpr uint32_t kDiff = 6, kPasses = 0, kReads = 1;
  static constexpr bool kReadsOut = false;
  template <class T>
  static PBP_INLINE Vec<T> f(const Vec<T>* x) {
    return select(x[0] != Vec<T>(0), x[1], x[2]);
  }
  template <int I, class T>
  static PBP_INLINE Vec<T> d(const Vec<T>* x, Vec<T>, Vec<T> dy) {
    const Vec<T> zero(0);
    return I == 1 ? select(x[0] != zero, dy, zero) : select(x[0] != zero, zero, dy);
  }
};

constexpr OpEntry kOps[] = {pbp_op<Add>(),
                            pbp_op<Sub>(),
                            pbp_op<Mul>(),
                            pbp_op<Div>(),
                            pbp_op<Pow>(),
                            pbp_op<Extreme<true>>(),
                            pbp_op<Extreme<false>>(),
                            pbp_op<Where>()};

}  // namespace
}  // namespace pbp

PBP_EXPORT(arithmetic, kOps)
