// Rules that divide each element's step by a running root mean square of its gradients: Adam, AdamW, RMSprop, Adagrad.
#pragma once
#include "sweep.h"

namespace pbp {
namespace {

// Adam, Kingma and Ba 2015 (arXiv 1412.6980), and AdamW, Loshchilov and Hutter 2019 (arXiv 1711.05101):
//   m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2
//   w -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
// where the step's factor is put into the divisor's two numbers. With eps_hat the root is (sqrt(v) + eps) / sqrt(1 -
// beta2^t) instead: the form just before section 2.1 of Kingma and Ba, which TensorFlow and scikit-learn have.
// Adam adds weight_decay * w to g; AdamW also takes lr * weight_decay * w off w. The decay is subtracted together with
// the step, in one rounding: 1 - lr * weight_decay as a float factor would lose most digits of a small decay.
template <bool kDecoupled>
struct AdamRule {
  static constexpr const char* name = kDecoupled ? "adamw" : "adam";
  static constexpr const char* hyper[] = {"beta1", "beta2", "eps", "weight_decay", "eps_hat", nullptr};
  static constexpr double defaults[] = {0.9, 0.999, 1e-8, kDecoupled ? 1e-2 : 0.0, 0.0};
  static constexpr const char* states[] = {"exp_avg", "exp_avg_sq", nullptr};
  static constexpr bool sparse = true;
  enum { kDecay, kFresh1, kBeta2, kFresh2, kRoot, kEps };

  static void prepare(const double* h, double lr, int64_t step, RuleNumbers& numbers) {
    const double t = double(step), by = lr / (1.0 - pow(h[0], t));
    const bool moves = fabs(by) > 1e-30;  // else 1 / by may be no float, and 0 * infinity no number
    numbers.v[kDecay] = kDecoupled ? lr * h[3] : h[3];
    numbers.v[kFresh1] = 1.0 - h[0];
    numbers.v[kBeta2] = h[1];
    numbers.v[kFresh2] = 1.0 - h[1];
    numbers.v[kRoot] = moves ? 1.0 / (by * ::sqrt(1.0 - pow(h[1], t))) : 0.0;
    numbers.v[kEps] = !moves ? HUGE_VAL : h[4] != 0 ? h[2] * numbers.v[kRoot] : h[2] / by;
  }

  template <class T>
  struct Update {
    static constexpr int kStates = 2;
    Vec<T> decay, fresh1, beta2, fresh2, root, eps;
    PBP_INLINE explicit Update(const RuleNumbers& n)
        : decay(T(n.v[kDecay])),
          fresh1(T(n.v[kFresh1])),
          beta2(T(n.v[kBeta2])),
          fresh2(T(n.v[kFresh2])),
          root(T(n.v[kRoot])),
          eps(T(n.v[kEps])) {}
    template <class Root>
    PBP_INLINE Vec<T> operator()(Vec<T> w, Vec<T> g, Vec<T>* s, Root) const {
      if constexpr (!kDecoupled) g = fma(decay, w, g);
      const Vec<T> m = fma(fresh1, g - s[0], s[0]);
      const Vec<T> v = fma(fresh2 * g, g, beta2 * s[1]);
      s[0] = m;
      s[1] = v;
      const Vec<T> by = m / fma(Root::of(v), root, eps);
      if constexpr (kDecoupled)
        return w - fma(decay, w, by);
      else
        return w - by;
    }
  };

  template <class T>
  static void run(const RuleNumbers& numbers, double scale, double clip, void* w, const void* g, void* const* state,
                  const Extent& n) {
    sweep<T, Update<T>>(numbers, scale, clip, w, g, state, n);
  }
};

// RMSprop, Hinton's lecture 6e, centered as Graves 2013 (arXiv 1308.0850), in PyTorch's form:
//   g += weight_decay * w;  v = alpha * v + (1 - alpha) * g^2;  a = alpha * a + (1 - alpha) * g (centered)
//   d = g / (sqrt(v - a^2) + eps);  w -= lr * (momentum ? b = momentum * b + d : d)
struct RmsProp {
  static constexpr const char* name = "rmsprop";
  static constexpr const char* hyper[] = {"alpha", "eps", "momentum", "centered", "weight_decay", nullptr};
  static constexpr double defaults[] = {0.99, 1e-8, 0.0, 0.0, 0.0};
  static constexpr const char* states[] = {"square_avg", "momentum_buffer", "grad_avg", nullptr};
  static constexpr bool sparse = false;
  enum { kLr, kAlpha, kFresh, kEps, kMomentum, kCentered, kDecay };

  static void prepare(const double* h, double lr, int64_t, RuleNumbers& numbers) {
    numbers.v[kLr] = lr;
    numbers.v[kAlpha] = h[0];
    numbers.v[kFresh] = 1.0 - h[0];
    numbers.v[kEps] = h[1];
    numbers.v[kMomentum] = h[2];
    numbers.v[kCentered] = h[3];
    numbers.v[kDecay] = h[4];
  }

  // States in the order v, then b if kHeavy, then a if kCenter: a variant's own list, see `run`.
  template <class T, bool kHeavy, bool kCenter>
  struct Update {
    static constexpr int kStates = 1 + kHeavy + kCenter;
    Vec<T> lr, alpha, fresh, eps, momentum, decay;
    PBP_INLINE explicit Update(const RuleNumbers& n)
        : lr(T(n.v[kLr])),
          alpha(T(n.v[kAlpha])),
          fresh(T(n.v[kFresh])),
          eps(T(n.v[kEps])),
          momentum(T(n.v[kMomentum])),
          decay(T(n.v[kDecay])) {}
    template <class Root>
    PBP_INLINE Vec<T> operator()(Vec<T> w, Vec<T> g, Vec<T>* s, Root) const {
      g = fma(decay, w, g);
      const Vec<T> v = fma(fresh * g, g, alpha * s[0]);
      s[0] = v;
      Vec<T> mean_square = v;
      if constexpr (kCenter) {
        Vec<T>& a = s[1 + kHeavy];
        a = fma(fresh, g - a, a);
        mean_square = fma(-a, a, v);
      }
      const Vec<T> d = g / (Root::of(mean_square) + eps);
      if constexpr (kHeavy) {
        s[1] = fma(momentum, s[1], d);
        return fma(-lr, s[1], w);
      } else {
        return fma(-lr, d, w);
      }
    }
  };

  template <class T>
  static void run(const RuleNumbers& numbers, double scale, double clip, void* w, const void* g, void* const* state,
                  const Extent& n) {
    const bool heavy = numbers.v[kMomentum] != 0, center = numbers.v[kCentered] != 0;
    void* const used[] = {state[0], heavy ? state[1] : state[2], state[2]};
    if (heavy && center)
      sweep<T, Update<T, true, true>>(numbers, scale, clip, w, g, used, n);
    else if (heavy)
      sweep<T, Update<T, true, false>>(numbers, scale, clip, w, g, used, n);
    else if (center)
      sweep<T, Update<T, false, true>>(numbers, scale, clip, w, g, used, n);
    else
      sweep<T, Update<T, false, false>>(numbers, scale, clip, w, g, used, n);
  }
};

// Adagrad, Duchi et al. 2011, in PyTorch's form:
//   g += weight_decay * w;  v += g^2;  w -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(v + initial) + eps)
// `initial_accumulator_value` is added where v is used, not where it starts: a row of an embedding table whose first
// update comes late then has it too.
struct Adagrad {
  static constexpr const char* name = "adagrad";
  static constexpr const char* hyper[] = {"lr_decay", "eps", "initial_accumulator_value", "weight_decay", nullptr};
  static constexpr double defaults[] = {0.0, 1e-10, 0.0, 0.0};
  static constexpr const char* states[] = {"sum", nullptr};
  static constexpr bool sparse = true;
  enum { kLr, kEps, kInitial, kDecay };

  static void prepare(const double* h, double lr, int64_t step, RuleNumbers& numbers) {
    numbers.v[kLr] = lr / (1.0 + double(step - 1) * h[0]);
    numbers.v[kEps] = h[1];
    numbers.v[kInitial] = h[2];
    numbers.v[kDecay] = h[3];
  }

  template <class T>
  struct Update {
    static constexpr int kStates = 1;
    Vec<T> lr, eps, initial, decay;
    PBP_INLINE explicit Update(const RuleNumbers& n)
        : lr(T(n.v[kLr])), eps(T(n.v[kEps])), initial(T(n.v[kInitial])), decay(T(n.v[kDecay])) {}
    template <class Root>
    PBP_INLINE Vec<T> operator()(Vec<T> w, Vec<T> g, Vec<T>* s, Root) const {
      g = fma(decay, w, g);
      s[0] = fma(g, g, s[0]);
      return fma(-lr, g / (Root::of(s[0] + initial) + eps), w);
    }
  };

  template <class T>
  static void run(const RuleNumbers& numbers, double scale, double clip, void* w, const void* g, void* const* state,
                  const Extent& n) {
    sweep<T, Update<T>>(numbers, scale, clip, w, g, state, n);
  }
};

}  // namespace
}  // namespace pbp
