// Functions of one element. Derivatives are written on what is kept: y where it suffices (nothing more to keep when a
// linear layer absorbs the function), else x. At kinks they are PyTorch's.
#include "../kernels/loops.h"
#include "../kernels/math.h"

namespace pbp {
namespace {

struct Relu : Elementwise<Relu, kReadsY> {
  static constexpr const char* name = "relu";
  static constexpr double kForwardNs = 0.04, kBackwardNs = 0.10;
  template <class T>
  static PBP_INLINE Vec<T> f(Plan, Vec<T> x) {
    return max(Vec<T>(0), x);
  }
  template <class T>
  static PBP_INLINE Vec<T> df(Plan, Vec<T> y, Vec<T> dy) {
    return select(y <= Vec<T>(0), Vec<T>(0), dy);
  }
};

// x > 0 ? x : negative_slope * x
struct LeakyRelu : Elementwise<LeakyRelu, kReadsY> {
  static constexpr const char* name = "leaky_relu";
  static constexpr double kForwardNs = 0.05, kBackwardNs = 0.10;
  struct Plan {
    double slope;
  };
  static bool options(Infer& s, Plan& p) {
    p.slope = s.f("negative_slope", 0.01);
    // Below zero the sign of y would say nothing of the sign of x.
    return p.slope >= 0 || s.fail("expects negative_slope >= 0, got %g", p.slope);
  }
  template <class T>
  static PBP_INLINE Vec<T> f(const Plan& p, Vec<T> x) {
    return select(x > Vec<T>(0), x, x * Vec<T>(T(p.slope)));
  }
  template <class T>
  static PBP_INLINE Vec<T> df(const Plan& p, Vec<T> y, Vec<T> dy) {
    return select(y > Vec<T>(0), dy, dy * Vec<T>(T(p.slope)));
  }
};

// x > 0 ? x : alpha * (e^x - 1)
struct Elu : Elementwise<Elu, kReadsY> {
  static constexpr const char* name = "elu";
  static constexpr double kForwardNs = 0.22, kBackwardNs = 0.10;
  struct Plan {
    double alpha;
  };
  static bool options(Infer& s, Plan& p) {
    p.alpha = s.f("alpha", 1.0);
    return p.alpha >= 0 || s.fail("expects alpha >= 0, got %g", p.alpha);
  }
  template <class T>
  static PBP_INLINE Vec<T> f(const Plan& p, Vec<T> x) {
    return select(x > Vec<T>(0), x, expm1(x) * Vec<T>(T(p.alpha)));
  }
  template <class T>
  static PBP_INLINE Vec<T> df(const Plan& p, Vec<T> y, Vec<T> dy) {
    return select(y > Vec<T>(0), dy, dy * (y + Vec<T>(T(p.alpha))));
  }
};

// x * P(X <= x) for a standard normal X, or with tanh=1 its usual approximation x * sigmoid(2u),
// u = sqrt(2/pi) * (x + 0.044715 x^3). Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
struct Gelu : Elementwise<Gelu, kReadsX> {
  static constexpr const char* name = "gelu";
  static constexpr double kForwardNs = 0.51, kBackwardNs = 0.55;
  static constexpr double kTwoU = 1.5957691216057308, kTwoU3 = kTwoU * 0.044715;
  struct Plan {
    int64_t tanh;
  };
  static bool options(Infer& s, Plan& p) {
    p.tanh = s.i("tanh", 0);
    return true;
  }
  template <class T>
  static PBP_INLINE Vec<T> f(const Plan& p, Vec<T> x) {
    if (p.tanh) return gated(x, x * fma(x * x, Vec<T>(T(kTwoU3)), Vec<T>(T(kTwoU))));
    Vec<T> cdf, pdf;
    normal(x, cdf, pdf);
    return x * cdf;
  }
  template <class T>
  static PBP_INLINE Vec<T> df(const Plan& p, Vec<T> x, Vec<T> dy) {
    if (p.tanh) {
      const Vec<T> x2 = x * x;
      const Vec<T> s = sigmoid(x * fma(x2, Vec<T>(T(kTwoU3)), Vec<T>(T(kTwoU))));
      const Vec<T> slope = fma(x2, Vec<T>(T(3 * kTwoU3)), Vec<T>(T(kTwoU)));
      return dy * fma(x * s * (Vec<T>(1) - s), slope, s);
    }
    Vec<T> cdf, pdf;
    normal(x, cdf, pdf);
    return dy * fma(x, pdf, cdf);
  }
};

// x * sigmoid(x)
struct Silu : Elementwise<Silu, kReadsX> {
  static constexpr const char* name = "silu";
  static constexpr double kForwardNs = 0.28, kBackwardNs = 0.31;
  template <class T>
  static PBP_INLINE Vec<T> f(Plan, Vec<T> x) {
    return gated(x, x);
  }
  template <class T>
  static PBP_INLINE Vec<T> df(Plan, Vec<T> x, Vec<T> dy) {
    const Vec<T> s = sigmoid(x);
    return dy * fma(x * s, Vec<T>(1) - s, s);
  }
};

struct Tanh : Elementwise<Tanh, kReadsY> {
  static constexpr const char* name = "tanh";
  static constexpr double kForwardNs = 0.30, kBackwardNs = 0.10;
  template <class T>
  static PBP_INLINE Vec<T> f(Plan, Vec<T> x) {
    return tanh(x);
  }
  template <class T>
  static PBP_INLINE Vec<T> df(Plan, Vec<T> y, Vec<T> dy) {
    return dy * fma(-y, y, Vec<T>(1));
  }
};

struct Sigmoid : Elementwise<Sigmoid, kReadsY> {
  static constexpr const char* name = "sigmoid";
  static constexpr double kForwardNs = 0.27, kBackwardNs = 0.10;
  template <class T>
  static PBP_INLINE Vec<T> f(Plan, Vec<T> x) {
    return sigmoid(x);
  }
  template <class T>
  static PBP_INLINE Vec<T> df(Plan, Vec<T> y, Vec<T> dy) {
    return dy * y * (Vec<T>(1) - y);
  }
};

// log(1 + e^(beta x)) / beta; x itself where beta x > threshold.
struct Softplus : Elementwise<Softplus, kReadsY> {
  static constexpr const char* name = "softplus";
  static constexpr double kForwardNs = 0.47, kBackwardNs = 0.25;
  struct Plan {
    double beta, threshold;
  };
  static bool options(Infer& s, Plan& p) {
    p.beta = s.f("beta", 1.0);
    p.threshold = s.f("threshold", 20.0);
    return p.beta > 0 || s.fail("expects beta > 0, got %g", p.beta);
  }
  template <class T>
  static PBP_INLINE Vec<T> f(const Plan& p, Vec<T> x) {
    const Vec<T> z = x * Vec<T>(T(p.beta));
    return select(z > Vec<T>(T(p.threshold)), x, softplus(z) * Vec<T>(T(1 / p.beta)));
  }
  // sigmoid(beta x) = 1 - e^(-beta y)
  template <class T>
  static PBP_INLINE Vec<T> df(const Plan& p, Vec<T> y, Vec<T> dy) {
    const Vec<T> z = y * Vec<T>(T(p.beta));
    return select(z > Vec<T>(T(p.threshold)), dy, -dy * expm1(-z));
  }
};

// x kept between min and max; the gradient stops at the edges.
struct Hardtanh : Elementwise<Hardtanh, kReadsY> {
  static constexpr const char* name = "hardtanh";
  static constexpr double kForwardNs = 0.06, kBackwardNs = 0.11;
  struct Plan {
    double min, max;
  };
  static bool options(Infer& s, Plan& p) {
    p.min = s.f("min", -1.0);
    p.max = s.f("max", 1.0);
    return p.min < p.max || s.fail("expects min < max, got min %g and max %g", p.min, p.max);
  }
  template <class T>
  static PBP_INLINE Vec<T> f(const Plan& p, Vec<T> x) {
    return min(Vec<T>(T(p.max)), max(Vec<T>(T(p.min)), x));
  }
  template <class T>
  static PBP_INLINE Vec<T> df(const Plan& p, Vec<T> y, Vec<T> dy) {
    return select((y <= Vec<T>(T(p.min))) | (y >= Vec<T>(T(p.max))), Vec<T>(0), dy);
  }
};

// x * tanh(softplus(x)). With e = e^x and n = e (e + 2): tanh(log(1 + e)) = n / (n + 2), and
// f' = n / (n + 2) + 4 x e (1 + e) / (n + 2)^2. Beyond x = 20 the function is x in every digit, and e^2 must not
// overflow; far below zero the shift keeps e in range as long as the result is. Misra, "Mish", 2019.
struct Mish : Elementwise<Mish, kReadsX> {
  static constexpr const char* name = "mish";
  static constexpr double kForwardNs = 0.41, kBackwardNs = 0.42;
  template <class T>
  static PBP_INLINE Vec<T> f(Plan, Vec<T> x) {
    const Vec<T> shift(T(1) / 65536), two(2);
    const Vec<T> shifted = exp_shifted<16>(min(Vec<T>(20), x)), e = shifted * shift;
    const Mask<T> far = x < Vec<T>(-64);
    return select(far, x * shift, x) * (select(far, shifted, e) * (e + two) / fma(e, e + two, two));
  }
  template <class T>
  static PBP_INLINE Vec<T> df(Plan, Vec<T> x, Vec<T> dy) {
    const Vec<T> z = min(Vec<T>(20), x), e = exp(z);
    const Vec<T> n = e * (e + Vec<T>(2));
    const Vec<T> q = Vec<T>(1) / (n + Vec<T>(2));
    return dy * q * fma(Vec<T>(4) * z * e, (Vec<T>(1) + e) * q, n);
  }
};

struct Exp : Elementwise<Exp, kReadsY> {
  static constexpr const char* name = "exp";
  static constexpr double kForwardNs = 0.19, kBackwardNs = 0.10;
  template <class T>
  static PBP_INLINE Vec<T> f(Plan, Vec<T> x) {
    return exp(x);
  }
  template <class T>
  static PBP_INLINE Vec<T> df(Plan, Vec<T> y, Vec<T> dy) {
    return dy * y;
  }
};

struct Log : Elementwise<Log, kReadsX> {
  static constexpr const char* name = "log";
  static constexpr double kForwardNs = 0.32, kBackwardNs = 0.10;
  template <class T>
  static PBP_INLINE Vec<T> f(Plan, Vec<T> x) {
    return log(x);
  }
  template <class T>
  static PBP_INLINE Vec<T> df(Plan, Vec<T> x, Vec<T> dy) {
    return dy / x;
  }
};

struct Sqrt : Elementwise<Sqrt, kReadsY> {
  static constexpr const char* name = "sqrt";
  static constexpr double kForwardNs = 0.17, kBackwardNs = 0.10;
  template <class T>
  static PBP_INLINE Vec<T> f(Plan, Vec<T> x) {
    return sqrt(x);
  }
  template <class T>
  static PBP_INLINE Vec<T> df(Plan, Vec<T> y, Vec<T> dy) {
    return dy / (y + y);
  }
};

struct Abs : Elementwise<Abs, kReadsX> {
  static constexpr const char* name = "abs";
  static constexpr double kForwardNs = 0.04, kBackwardNs = 0.10;
  template <class T>
  static PBP_INLINE Vec<T> f(Plan, Vec<T> x) {
    return abs(x);
  }
  template <class T>
  static PBP_INLINE Vec<T> df(Plan, Vec<T> x, Vec<T> dy) {
    return select(x > Vec<T>(0), dy, select(x < Vec<T>(0), -dy, Vec<T>(0)));
  }
};

struct Neg : Elementwise<Neg, kReadsY> {
  static constexpr const char* name = "neg";
  static constexpr double kForwardNs = 0.04, kBackwardNs = 0.04;
  template <class T>
  static PBP_INLINE Vec<T> f(Plan, Vec<T> x) {
    return -x;
  }
  template <class T>
  static PBP_INLINE Vec<T> df(Plan, Vec<T>, Vec<T> dy) {
    return -dy;
  }
};

// x kept between min and max; the gradient passes at the edges.
struct Clip : Elementwise<Clip, kReadsX> {
  static constexpr const char* name = "clip";
  static constexpr double kForwardNs = 0.06, kBackwardNs = 0.11;
  struct Plan {
    double min, max;
  };
  static bool options(Infer& s, Plan& p) {
    p.min = s.f("min", -INFINITY);
    p.max = s.f("max", INFINITY);
    return p.min <= p.max || s.fail("expects min <= max, got min %g and max %g", p.min, p.max);
  }
  template <class T>
  static PBP_INLINE Vec<T> f(const Plan& p, Vec<T> x) {
    return min(Vec<T>(T(p.max)), max(Vec<T>(T(p.min)), x));
  }
  template <class T>
  static PBP_INLINE Vec<T> df(const Plan& p, Vec<T> x, Vec<T> dy) {
    return select((x >= Vec<T>(T(p.min))) & (x <= Vec<T>(T(p.max))), dy, Vec<T>(0));
  }
};

// x to a constant exponent.
struct Power : Elementwise<Power, kReadsX> {
  static constexpr const char* name = "power";
  static constexpr double kForwardNs = 0.5, kBackwardNs = 0.5;  // 0.05 for a square, 1.6 for 2.5
  struct Plan {
    double exponent;
  };
  static bool options(Infer& s, Plan& p) {
    if (!s.has("exponent")) return s.fail("expects the option exponent");
    p.exponent = s.f("exponent", 1.0);
    return true;
  }
  template <class T>
  static PBP_INLINE Vec<T> f(const Plan& p, Vec<T> x) {
    return raise(x, p.exponent);
  }
  template <class T>
  static PBP_INLINE Vec<T> df(const Plan& p, Vec<T> x, Vec<T> dy) {
    if (p.exponent == 0) return Vec<T>(0);  // not 0 * x^-1, which is no number at 0
    return dy * Vec<T>(T(p.exponent)) * raise(x, p.exponent - 1);
  }

 private:
  template <class T>
  static PBP_INLINE Vec<T> raise(Vec<T> x, double e) {
    if (e == 0) return Vec<T>(1);
    if (e == 1) return x;
    if (e == 2) return x * x;
    if (e == 3) return x * x * x;
    if (e == -1) return Vec<T>(1) / x;
    if (e == 0.5) return sqrt(x);
    if (e == -0.5) return Vec<T>(1) / sqrt(x);
    return pow(x, Vec<T>(T(e)));
  }
};

constexpr OpEntry kOps[] = {pbp_op<Relu>(), pbp_op<LeakyRelu>(), pbp_op<Elu>(),      pbp_op<Gelu>(),     pbp_op<Silu>(),
                            pbp_op<Tanh>(), pbp_op<Sigmoid>(),   pbp_op<Softplus>(), pbp_op<Hardtanh>(), pbp_op<Mish>(),
                            pbp_op<Exp>(),  pbp_op<Log>(),       pbp_op<Sqrt>(),     pbp_op<Abs>(),      pbp_op<Neg>(),
                            pbp_op<Clip>(), pbp_op<Power>()};

}  // namespace
}  // namespace pbp

PBP_EXPORT(activations, kOps)
