// Rules whose step is a direction made of gradients alone: SGD and Lion.
#pragma once
#include "sweep.h"

namespace pbp {
namespace {

// Stochastic gradient descent; Sutskever et al. 2013 for momentum in PyTorch's form:
//   g += weight_decay * w;  b = momentum * b + (1 - dampening) * g (b = g at step 1);
//   w -= lr * (nesterov ? g + momentum * b : b)
struct Sgd {
  static constexpr const char* name = "sgd";
  static constexpr const char* hyper[] = {"momentum", "dampening", "nesterov", "weight_decay", nullptr};
  static constexpr double defaults[] = {0.0, 0.0, 0.0, 0.0};
  static constexpr const char* states[] = {"momentum_buffer", nullptr};
  static constexpr bool sparse = true;
  enum { kLr, kDecay, kMomentum, kFresh, kNesterov };

  static void prepare(const double* h, double lr, int64_t step, RuleNumbers& numbers) {
    numbers.v[kLr] = lr;
    numbers.v[kDecay] = h[3];
    numbers.v[kMomentum] = h[0];
    numbers.v[kFresh] = step == 1 ? 1.0 : 1.0 - h[1];  // the buffer starts as zero: this makes it g
    numbers.v[kNesterov] = h[2];
  }

  template <class T>
  struct Plain {
    static constexpr int kStates = 0;
    Vec<T> lr, decay;
    PBP_INLINE explicit Plain(const RuleNumbers& n) : lr(T(n.v[kLr])), decay(T(n.v[kDecay])) {}
    template <class Root>
    PBP_INLINE Vec<T> operator()(Vec<T> w, Vec<T> g, Vec<T>*, Root) const {
      return fma(-lr, fma(decay, w, g), w);
    }
  };

  template <class T, bool kLookAhead>
  struct Momentum {
    static constexpr int kStates = 1;
    Vec<T> lr, decay, momentum, fresh;
    PBP_INLINE explicit Momentum(const RuleNumbers& n)
        : lr(T(n.v[kLr])), decay(T(n.v[kDecay])), momentum(T(n.v[kMomentum])), fresh(T(n.v[kFresh])) {}
    template <class Root>
    PBP_INLINE Vec<T> operator()(Vec<T> w, Vec<T> g, Vec<T>* s, Root) const {
      g = fma(decay, w, g);
      s[0] = fma(momentum, s[0], fresh * g);
      if constexpr (kLookAhead)
        return fma(-lr, fma(momentum, s[0], g), w);
      else
        return fma(-lr, s[0], w);
    }
  };

  template <class T>
  static void run(const RuleNumbers& numbers, double scale, double clip, void* w, const void* g, void* const* state,
                  const Extent& n) {
    if (numbers.v[kMomentum] == 0)
      sweep<T, Plain<T>>(numbers, scale, clip, w, g, state, n);
    else if (numbers.v[kNesterov] != 0)
      sweep<T, Momentum<T, true>>(numbers, scale, clip, w, g, state, n);
    else
      sweep<T, Momentum<T, false>>(numbers, scale, clip, w, g, state, n);
  }
};

// Lion, Chen et al. 2023 (arXiv 2302.06675), decay decoupled as in the paper:
//   w -= lr * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * w);  m = beta2 * m + (1 - beta2) * g
struct Lion {
  static constexpr const char* name = "lion";
  static constexpr const char* hyper[] = {"beta1", "beta2", "weight_decay", nullptr};
  static constexpr double defaults[] = {0.9, 0.99, 0.0};
  static constexpr const char* states[] = {"exp_avg", nullptr};
  static constexpr bool sparse = true;
  enum { kLr, kDecay, kFresh1, kFresh2 };

  static void prepare(const double* h, double lr, int64_t, RuleNumbers& numbers) {
    numbers.v[kLr] = lr;
    numbers.v[kDecay] = lr * h[2];
    numbers.v[kFresh1] = 1.0 - h[0];
    numbers.v[kFresh2] = 1.0 - h[1];
  }

  template <class T>
  struct Update {
    static constexpr int kStates = 1;
    Vec<T> lr, decay, fresh1, fresh2;
    PBP_INLINE explicit Update(const RuleNumbers& n)
        : lr(T(n.v[kLr])), decay(T(n.v[kDecay])), fresh1(T(n.v[kFresh1])), fresh2(T(n.v[kFresh2])) {}
    template <class Root>
    PBP_INLINE Vec<T> operator()(Vec<T> w, Vec<T> g, Vec<T>* s, Root) const {
      const Vec<T> zero(T(0));
      const Vec<T> blend = fma(fresh1, g - s[0], s[0]);
      // Zero gives no step and NaN stays NaN.
      const Vec<T> sign = select(blend > zero, Vec<T>(T(1)), select(blend < zero, Vec<T>(T(-1)), blend));
      s[0] = fma(fresh2, g - s[0], s[0]);
      return w - fma(decay, w, lr * sign);
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
