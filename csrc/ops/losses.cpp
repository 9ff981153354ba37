// Losses of one element each: a formula l(x, t) and its derivatives, side by side; kernels/pointwise_loss.h puts
// weights and reductions round all of them.
#include "../kernels/math.h"
#include "../kernels/pointwise_loss.h"

namespace pbp {
namespace {

// Where the truth of a mask is 1, else 0.
template <class T>
PBP_INLINE Vec<T> one_if(Mask<T> m) {
  return select(m, Vec<T>(T(1)), Vec<T>(T(0)));
}

// l = (x - t)^2
struct Mse {
  static constexpr const char* name = "mse";
  static constexpr LossTraits traits{0.1};
  template <class T>
  struct Fn {
    PBP_INLINE explicit Fn(const double*) {}
    PBP_INLINE Vec<T> value(Vec<T> x, Vec<T> t, Vec<T>) const { return (x - t) * (x - t); }
    PBP_INLINE Vec<T> dx(Vec<T> x, Vec<T> t, Vec<T>) const { return (x - t) + (x - t); }
    PBP_INLINE Vec<T> dt(Vec<T> x, Vec<T> t, Vec<T>) const { return (t - x) + (t - x); }
  };
};

// l = |x - t|; the derivative at 0 is 0, as in PyTorch.
struct L1 {
  static constexpr const char* name = "l1";
  static constexpr LossTraits traits{0.1};
  template <class T>
  struct Fn {
    PBP_INLINE explicit Fn(const double*) {}
    PBP_INLINE Vec<T> value(Vec<T> x, Vec<T> t, Vec<T>) const { return abs(x - t); }
    PBP_INLINE Vec<T> dx(Vec<T> x, Vec<T> t, Vec<T>) const {
      const Vec<T> d = x - t;
      return select(d == d, one_if(d > Vec<T>(T(0))) - one_if(d < Vec<T>(T(0))), d);
    }
    PBP_INLINE Vec<T> dt(Vec<T> x, Vec<T> t, Vec<T> e) const { return -dx(x, t, e); }
  };
};

// l = d^2 / 2 where |d| < delta, else delta * (|d| - delta / 2), with d = x - t. Huber 1964.
struct Huber {
  static constexpr const char* name = "huber";
  static bool options(Infer& s, LossPlan& p) {
    p.option[0] = s.f("delta", 1.0);
    return p.option[0] > 0 || s.fail("delta must be above 0, got %g", p.option[0]);
  }
  static constexpr LossTraits traits{0.12, false, false, false, true, options};
  template <class T>
  struct Fn {
    Vec<T> delta;
    PBP_INLINE explicit Fn(const double* o) : delta(T(o[0])) {}
    PBP_INLINE Vec<T> value(Vec<T> x, Vec<T> t, Vec<T>) const {
      const Vec<T> z = abs(x - t), half(T(0.5));
      return select(z < delta, half * z * z, delta * (z - half * delta));
    }
    PBP_INLINE Vec<T> dx(Vec<T> x, Vec<T> t, Vec<T>) const { return max(-delta, min(delta, x - t)); }
    PBP_INLINE Vec<T> dt(Vec<T> x, Vec<T> t, Vec<T> e) const { return -dx(x, t, e); }
  };
};

// l = (1 - t) * softplus(x) + p * t * softplus(-x), p = pos_weight: cross entropy of t against sigmoid(x), never
// forming the logarithm of a rounded probability. dx = (1 - t) * sigmoid(x) - p * t * sigmoid(-x) is accurate in both
// tails.
struct BceWithLogits {
  static constexpr const char* name = "bce_with_logits";
  static constexpr LossTraits traits{0.6, true};
  template <class T>
  struct Fn {
    PBP_INLINE explicit Fn(const double*) {}
    PBP_INLINE Vec<T> value(Vec<T> x, Vec<T> t, Vec<T> p) const {
      const Vec<T> zero(T(0)), one(T(1));
      const Vec<T> tail = log1p_unit(exp(-abs(x)));  // softplus(x) = max(x, 0) + tail, softplus(-x) = max(-x, 0) + tail
      return fma(one - t, max(zero, x) + tail, p * t * (max(zero, -x) + tail));
    }
    PBP_INLINE Vec<T> dx(Vec<T> x, Vec<T> t, Vec<T> p) const {
      const Vec<T> one(T(1));
      const Vec<T> e = exp(-abs(x));
      const Vec<T> large = one / (one + e), small = e * large;  // sigmoid(|x|), sigmoid(-|x|)
      const Mask<T> positive = x > Vec<T>(T(0));
      const Vec<T> up = select(positive, large, small), down = select(positive, small, large);
      return fma(one - t, up, -(p * t * down));
    }
    PBP_INLINE Vec<T> dt(Vec<T> x, Vec<T>, Vec<T> p) const {
      const Vec<T> zero(T(0));
      const Vec<T> tail = log1p_unit(exp(-abs(x)));
      return p * (max(zero, -x) + tail) - (max(zero, x) + tail);
    }
  };
};

// l = exp(x) - t * x (log_input), or x - t * log(x + eps); `full` adds Stirling's t log t - t + log(2 pi t) / 2 where
// t > 1.
template <class T, bool kLog>
struct PoissonFn {
  Vec<T> eps, full;
  PBP_INLINE explicit PoissonFn(const double* o) : eps(T(o[1])), full(T(o[2])) {}
  PBP_INLINE Vec<T> value(Vec<T> x, Vec<T> t, Vec<T>) const {
    const Vec<T> l = kLog ? exp(x) - t * x : x - t * log(x + eps);
    const Vec<T> half(T(0.5)), two_pi(T(6.283185307179586));
    const Vec<T> stirling = t * log(t) - t + half * log(two_pi * t);
    return l + select(full * t > Vec<T>(T(1)), stirling, Vec<T>(T(0)));
  }
  PBP_INLINE Vec<T> dx(Vec<T> x, Vec<T> t, Vec<T>) const { return kLog ? exp(x) - t : Vec<T>(T(1)) - t / (x + eps); }
  PBP_INLINE Vec<T> dt(Vec<T> x, Vec<T> t, Vec<T>) const {
    const Vec<T> l = kLog ? -x : -log(x + eps);
    return l + select(full * t > Vec<T>(T(1)), log(t) + Vec<T>(T(0.5)) / t, Vec<T>(T(0)));
  }
};

struct PoissonNll {
  static constexpr const char* name = "poisson_nll";
  static bool options(Infer& s, LossPlan& p) {
    p.option[0] = s.i("log_input", 1) != 0;
    p.option[1] = s.f("eps", 1e-8);
    p.option[2] = s.i("full", 0) != 0;
    return p.option[1] >= 0 || s.fail("eps must be 0 or more, got %g", p.option[1]);
  }
  static constexpr LossTraits traits{0.8, false, false, false, true, options};
  template <class T>
  struct Fn {
    PoissonFn<T, true> of_log;
    PoissonFn<T, false> of_rate;
    bool log_input;
    PBP_INLINE explicit Fn(const double* o) : of_log(o), of_rate(o), log_input(o[0] != 0) {}
    PBP_INLINE Vec<T> value(Vec<T> x, Vec<T> t, Vec<T> e) const {
      return log_input ? of_log.value(x, t, e) : of_rate.value(x, t, e);
    }
    PBP_INLINE Vec<T> dx(Vec<T> x, Vec<T> t, Vec<T> e) const {
      return log_input ? of_log.dx(x, t, e) : of_rate.dx(x, t, e);
    }
    PBP_INLINE Vec<T> dt(Vec<T> x, Vec<T> t, Vec<T> e) const {
      return log_input ? of_log.dt(x, t, e) : of_rate.dt(x, t, e);
    }
  };
};

// l = t * (log t - x), x being a log-probability, 0 at t = 0; with log_target exp(t) * (t - x).
struct KlDiv {
  static constexpr const char* name = "kl_div";
  static bool options(Infer& s, LossPlan& p) {
    p.option[0] = s.i("log_target", 0) != 0;
    return true;
  }
  static constexpr LossTraits traits{0.5, false, false, true, true, options};
  template <class T>
  struct Fn {
    bool log_target;
    PBP_INLINE explicit Fn(const double* o) : log_target(o[0] != 0) {}
    PBP_INLINE Vec<T> value(Vec<T> x, Vec<T> t, Vec<T>) const {
      if (log_target) return exp(t) * (t - x);
      const Vec<T> zero(T(0));
      return select(t == zero, zero, t * log(t)) - t * x;
    }
    PBP_INLINE Vec<T> dx(Vec<T>, Vec<T> t, Vec<T>) const { return log_target ? -exp(t) : -t; }
    PBP_INLINE Vec<T> dt(Vec<T> x, Vec<T> t, Vec<T>) const {
      const Vec<T> one(T(1));
      return log_target ? exp(t) * (t - x + one) : log(t) + one - x;
    }
  };
};

// l = max(q * d, (q - 1) * d) with d = t - x, for the quantile q of x's column; the derivative at 0 is -q.
// Koenker and Bassett 1978.
struct Pinball {
  static constexpr const char* name = "pinball";
  static bool options(Infer& s, LossPlan& p) {
    const Shape& x = s.in(0);
    p.period = s.floats("quantiles", p.quantile, kMaxQuantiles);
    if (p.period < 1) return s.fail("needs quantiles, a list of numbers between 0 and 1");
    for (int i = 0; i < p.period; ++i)
      if (!(p.quantile[i] > 0 && p.quantile[i] < 1))
        return s.fail("quantiles must be in (0, 1), got %g", p.quantile[i]);
    if (x.rank < 1 || x.rank > 2 || p.width != p.period)
      return s.fail("expects predictions (rows, %lld), one column for each quantile, but %s is %s",
                    static_cast<long long>(p.period), s.who(0), s.text(x));
    p.row_target = p.period > 1;
    return true;
  }
  static constexpr LossTraits traits{0.3, false, true, false, false, options};
  template <class T>
  struct Fn {
    PBP_INLINE explicit Fn(const double*) {}
    PBP_INLINE Vec<T> value(Vec<T> x, Vec<T> t, Vec<T> q) const {
      const Vec<T> d = t - x;
      return nan_max(q * d, (q - Vec<T>(T(1))) * d);
    }
    PBP_INLINE Vec<T> dx(Vec<T> x, Vec<T> t, Vec<T> q) const { return one_if(t - x < Vec<T>(T(0))) - q; }
    PBP_INLINE Vec<T> dt(Vec<T> x, Vec<T> t, Vec<T> q) const { return -dx(x, t, q); }
  };
};

// l = max(0, 1 - t * x) with t = 1 or -1; the derivative at the corner is 0.
struct Hinge {
  static constexpr const char* name = "hinge";
  static constexpr LossTraits traits{0.1, false, false, false, false};
  template <class T>
  struct Fn {
    PBP_INLINE explicit Fn(const double*) {}
    PBP_INLINE Vec<T> value(Vec<T> x, Vec<T> t, Vec<T>) const { return max(Vec<T>(T(0)), fma(-t, x, Vec<T>(T(1)))); }
    PBP_INLINE Vec<T> dx(Vec<T> x, Vec<T> t, Vec<T>) const {
      return select(fma(-t, x, Vec<T>(T(1))) > Vec<T>(T(0)), -t, Vec<T>(T(0)));
    }
    PBP_INLINE Vec<T> dt(Vec<T> x, Vec<T>, Vec<T>) const { return -x; }
  };
};

constexpr OpEntry kOps[] = {
    pbp_op<Pointwise<Mse>>(),           pbp_op<Pointwise<L1>>(),         pbp_op<Pointwise<Huber>>(),
    pbp_op<Pointwise<BceWithLogits>>(), pbp_op<Pointwise<PoissonNll>>(), pbp_op<Pointwise<KlDiv>>(),
    pbp_op<Pointwise<Pinball>>(),       pbp_op<Pointwise<Hinge>>(),
};

}  // namespace
}  // namespace pbp

PBP_EXPORT(losses, kOps)
