// Transcendental functions of a Vec. Float: argument reduction and a minimax polynomial, no tables, the same bits on
// every level with FMA. Double: exp, tanh and what is made of them in the same way, within 1.5 and 2.5 ULP; the rest is
// libm, lane by lane.
//
// Largest error in ULP of float against double libm, over two million floats spread over all exponents. NaN propagates,
// infinities give their limits, results below 2^-126 may be flushed to zero.
//               exp   expm1  log   tanh  sigmoid  gated  softplus  pow   normal's cdf for x > -4
//   AVX2, 512   0.97  1.37   0.77  1.79  1.98     2.18   2.28      0.53  6.5
//   SSE         0.93  1.44   0.77  1.97  1.98     2.18   2.44      0.53  8.4
// The cdf's absolute error is below 2.2e-7 everywhere; its relative error grows in the far tail with x*x, which is
// rounded.
#pragma once
#include <math.h>

#include "vec.h"

namespace pbp {
namespace {

typedef Native<float>::V Floats;
typedef Native<float>::I Ints;

PBP_INLINE Floats all(float c) { return c - Floats{}; }
PBP_INLINE Floats pick(Ints m, Floats a, Floats b) { return m ? a : b; }
PBP_INLINE Floats abs1(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }

// Horner's rule, highest power first.
template <class V>
PBP_INLINE V poly(V, V p) {
  return p;
}
template <class V, class... C>
PBP_INLINE V poly(V x, V p, decltype(x[0] + 0) c, C... rest) {
  return poly(x, fma1(p, x, V{} + c), rest...);
}

// x = n*ln2 + r with |r| <= ln2/2. The bits of n + 1.5*2^23 + kBias hold n + kBias in the low nine; 254 is two
// exponents' bias.
struct Reduced {
  Floats r, n;
  Ints bits;
};
template <int kBias = 254>
PBP_INLINE Reduced reduce(Floats x) {
  const Floats magic = all(12582912.f + float(kBias));
  const Floats t = fma1(x, all(1.44269504f), magic);
  Reduced o;
  o.n = t - magic;
  o.bits = (Ints)t;
  o.r = fma1(o.n, all(-1.42860677e-6f), fma1(o.n, all(-0.693145752f), x));  // ln2 in two parts, n*high exact
  return o;
}
// e^r - 1 for |r| <= ln2/2.
PBP_INLINE Floats exp_poly(Floats r) {
  const Floats q = poly(r, all(1.381392070e-3f), 8.370064337e-3f, 4.166847888e-2f, 1.666650950e-1f, 4.999999289e-1f);
  return fma1(r * r, q, r);
}
// e^x * 2^K, for small K.
template <int K>
PBP_INLINE Floats exp_shifted(Floats x) {
  const Reduced a = reduce(min1(all(89.f - K * 0.6931f), max1(all(-104.f - K * 0.6931f), x)));
  const Floats p = exp_poly(a.r) + 1.f;
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)(a.n + float(K)));
#else  // in two steps, so that only the last can round, overflow or underflow
  const Ints bits = a.bits + K, half = bits >> 1;
  return p * (Floats)(half << 23) * (Floats)((bits - half) << 23);
#endif
}
PBP_INLINE Floats exp(Floats x) { return exp_shifted<0>(x); }
PBP_INLINE Floats expm1(Floats x) {
  const Reduced a = reduce<126>(min1(all(89.f), max1(all(-18.f), x)));
  const Floats s = (Floats)(a.bits << 23);  // 2^(n-1): 2^n itself would overflow at n = 128
  const Floats h = fma1(s, exp_poly(a.r), s - 0.5f);
  return h + h;
}

// u = 2^k * m with m in [sqrt(1/2), sqrt(2)).
PBP_INLINE Floats split(Floats u, Floats& k) {
  const Ints e = ((Ints)u - 0x3f3504f3) >> 23;
  k = __builtin_convertvector(e, Floats);
  return (Floats)((Ints)u - (e << 23));
}
// k*ln2 + log(1 + f)
PBP_INLINE Floats log_poly(Floats f, Floats k) {
  const Floats p = poly(f, all(-7.635542932e-2f), 1.276161948e-1f, -1.315975666e-1f, 1.420171664e-1f, -1.662340274e-1f,
                        2.000123112e-1f, -2.500081961e-1f, 3.333333161e-1f);
  const Floats z = f * f;
  const Floats low = fma1(z, all(-0.5f), fma1(f * z, p, k * 1.42860677e-6f));
  return fma1(k, all(0.693145752f), f + low);
}
PBP_INLINE Floats log(Floats x) {
  Floats k;
  const Floats m = split(x, k);
  Floats y = log_poly(m - 1.f, k);
  y = pick(x <= 3.40282347e38f, y, x);
  return pick(x < 1.17549435e-38f, pick(x < 0.f, all(NAN), all(-INFINITY)), y);
}
// log(1 + z) for z in [0, 1].
PBP_INLINE Floats log1p_unit(Floats z) {
  return z * poly(z, all(-3.244025171e-3f), 1.985146234e-2f, -5.695953422e-2f, 1.060365488e-1f, -1.530559256e-1f,
                  1.967593925e-1f, -2.495413365e-1f, 3.332996242e-1f, -4.999990242e-1f, 9.999999953e-1f);
}

// With h = (e^2|x| - 1) / 2: h / (h + 1), which near zero as h - h * h / (h + 1) loses less to the two roundings.
PBP_INLINE Floats tanh(Floats x) {
  const Floats a = abs1(x);
  const Reduced b = reduce<126>(min1(all(20.f), a + a));
  const Floats s = (Floats)(b.bits << 23);  // 2^(n-1)
  const Floats h = fma1(s, exp_poly(b.r), s - 0.5f);
  const Floats q = h / (h + 1.f);
  const Floats y = pick(a < 0.35f, fma1(-h, q, h), q);
  return (Floats)((Ints)y | ((Ints)x & int32_t(0x80000000u)));
}

// The standard normal's distribution function and density: cdf(-a) = exp(-a*a/2) * q, a polynomial in 1/(1 + 0.3 a).
PBP_INLINE void normal(Floats x, Floats& cdf, Floats& pdf) {
  const Floats e = exp(x * x * -0.5f);
  const Floats t = 1.f / fma1(abs1(x), all(0.3f), all(1.f));
  const Floats q = t * poly(t, all(-0.0205789935f), 0.112185217f, -0.227601469f, 0.190933302f, -0.0786829591f,
                            0.095739767f, 0.0785413831f, 0.110201113f, 0.119576178f, 0.119686455f);
  const Floats tail = e * q;
  cdf = pick(x < 0.f, tail, 1.f - tail);
  pdf = e * 0.398942280f;
}

// pow runs in double, half a native of floats at a time: y*log2(x) needs more bits than a float has.
typedef Native<double>::V Doubles;
typedef Native<double>::I Longs;
typedef float HalfFloats __attribute__((vector_size(kVecBytes / 2), aligned(4), may_alias));

PBP_INLINE Doubles pow(Doubles x, Doubles y) {
  const Doubles inf = Doubles{} + INFINITY;
  const Doubles a = (Doubles)((Longs)x & INT64_MAX);
  const Longs e = ((Longs)a - 0x3fe6a09e667f3bcdLL) >> 52;
  const Doubles m = (Doubles)((Longs)a - (e << 52));
  // e is small: its double is the low bits of 1.5*2^52 + e, less 1.5*2^52. (AVX2 has no conversion.)
  const Doubles big = Doubles{} + 6755399441055744.0;
  const Doubles k = (Doubles)((Longs)big + e) - big;
  const Doubles s = (m - 1.0) / (m + 1.0);
  Doubles l = fma1(s,
                   poly(s * s, Doubles{} + 0.34093793203062445, 0.41166195655539639, 0.5770837555953211,
                        0.96179667250003997, 2.8853900817907099),
                   k);
  l = a > 0 ? l : -inf;
  l = a < inf ? l : a;  // infinity or NaN
  const Doubles z = min1(Doubles{} + 200.0, max1(Doubles{} - 200.0, y * l));
  const Doubles t = z + big;
  const Doubles r = z - (t - big);
  Doubles p = poly(r, Doubles{} + 0.00015345811996357253, 0.0013399931217692276, 0.0096184889571078423,
                   0.055503287769709773, 0.24022646890634844, 0.69314720573726374, 1.0000000005541665);
  p = p * (Doubles)(((Longs)t + 1023) << 52);
  // Negative x: only whole y have a value, odd ones a negative one. Beyond 2^51 every float is even.
  const Doubles h = y * 0.5;
  const Longs small = (Doubles)((Longs)y & INT64_MAX) < 2251799813685248.0;
  const Longs whole = ~small | ((y + big) - big == y), even = ~small | ((h + big) - big == h);
  const Longs negative = (Longs)x >> 63;
  const Longs sign = negative & whole & ~even & INT64_MIN;
  p = (negative & ~whole & (a > 0) & (a < inf)) ? Doubles{} + NAN : (Doubles)((Longs)p | sign);
  const Longs one = (y == 0) | (x == 1.0) | ((x == -1.0) & ((Doubles)((Longs)y & INT64_MAX) == inf));
  return one ? Doubles{} + 1.0 : p;
}

// exp and tanh of doubles: as of floats above. n + 1.5*2^52 has the bits of 1.5*2^52, plus n.
struct WideReduced {
  Doubles r;
  Longs n;
};
PBP_INLINE WideReduced reduce(Doubles x) {
  const Doubles big = Doubles{} + 6755399441055744.0;
  const Doubles t = fma1(x, Doubles{} + 1.4426950408889634, big), n = t - big;
  return {fma1(n, Doubles{} - 1.90821492927058770002e-10, fma1(n, Doubles{} - 6.93147180369123816490e-01, x)),
          (Longs)t - (Longs)big};
}
// e^r - 1 for |r| <= ln2/2: Taylor's series, whose next term is below 2^-56.
PBP_INLINE Doubles exp_poly(Doubles r) {
  const Doubles q =
      poly(r, Doubles{} + 1.6059043836821613e-10, 2.0876756987868099e-09, 2.5052108385441720e-08,
           2.7557319223985893e-07, 2.7557319223985888e-06, 2.4801587301587302e-05, 1.9841269841269841e-04,
           1.3888888888888889e-03, 8.3333333333333332e-03, 4.1666666666666664e-02, 1.6666666666666666e-01, 0.5);
  return fma1(r * r, q, r);
}
PBP_INLINE Doubles power_of_two(Longs n) { return (Doubles)((n + 1023) << 52); }
PBP_INLINE Doubles exp(Doubles x) {
  const WideReduced a = reduce(min1(Doubles{} + 710.0, max1(Doubles{} - 750.0, x)));
  const Longs half = a.n >> 1;  // in two steps, so that only the last can round, overflow or underflow
  return (exp_poly(a.r) + 1.0) * power_of_two(half) * power_of_two(a.n - half);
}
PBP_INLINE Doubles tanh(Doubles x) {
  const Doubles a = (Doubles)((Longs)x & INT64_MAX);
  const WideReduced b = reduce(min1(Doubles{} + 40.0, a + a));
  const Doubles s = power_of_two(b.n - 1);
  const Doubles h = fma1(s, exp_poly(b.r), s - 0.5);
  const Doubles q = h / (h + 1.0);
  const Doubles y = a < 0.35 ? fma1(-h, q, h) : q;
  return (Doubles)((Longs)y | ((Longs)x & INT64_MIN));
}

// A function of natives becomes one of Vec<float>, and one of Vec<double> where there is a wide one, else libm.
template <class F>
PBP_INLINE Vec<double> lane_by_lane(Vec<double> x, F f) {
  alignas(64) double b[kLanes];
  x.store(b);
  for (int i = 0; i < kLanes; ++i) b[i] = f(b[i]);
  return Vec<double>::load(b);
}
#define PBP_MATH(T, name)            \
  PBP_INLINE Vec<T> name(Vec<T> x) { \
    constexpr int N = Vec<T>::N;     \
    PBP_EACH x.v[i] = name(x.v[i]);  \
    return x;                        \
  }
#define PBP_LIBM(name)                                                                         \
  PBP_INLINE Vec<double> name(Vec<double> x) {                                                 \
    return lane_by_lane(x, [](double a) __attribute__((always_inline)) { return ::name(a); }); \
  }
PBP_MATH(float, exp)
PBP_MATH(float, expm1)
PBP_MATH(float, log)
PBP_MATH(float, tanh)
PBP_MATH(double, exp)
PBP_MATH(double, tanh)
PBP_LIBM(expm1)
PBP_LIBM(log)
#undef PBP_MATH
#undef PBP_LIBM

template <int K>
PBP_INLINE Vec<float> exp_shifted(Vec<float> x) {
  constexpr int N = Vec<float>::N;
  PBP_EACH x.v[i] = exp_shifted<K>(x.v[i]);
  return x;
}
template <int K>
PBP_INLINE Vec<double> exp_shifted(Vec<double> x) {
  return exp(x) * Vec<double>(K < 0 ? 1.0 / (1 << (K < 0 ? -K : 0)) : double(1 << (K > 0 ? K : 0)));
}

// 1 / (1 + e^-x)
template <class T>
PBP_INLINE Vec<T> sigmoid(Vec<T> x) {
  return Vec<T>(1) / (exp(-x) + Vec<T>(1));
}

PBP_INLINE Vec<float> log1p_unit(Vec<float> z) {
  constexpr int N = Vec<float>::N;
  PBP_EACH z.v[i] = log1p_unit(z.v[i]);
  return z;
}
PBP_INLINE Vec<double> log1p_unit(Vec<double> z) {
  return lane_by_lane(z, [](double a) __attribute__((always_inline)) { return ::log1p(a); });
}

// x * sigmoid(z). Far below zero the shift keeps e^-z in range as long as the result is.
template <class T>
PBP_INLINE Vec<T> gated(Vec<T> x, Vec<T> z) {
  const Vec<T> e = exp_shifted<-16>(-z);
  const Mask<T> far = z < Vec<T>(-64);
  return select(far, x * Vec<T>(T(1) / 65536), x) / select(far, e, fma(e, Vec<T>(65536), Vec<T>(1)));
}

// log(1 + e^x)
template <class T>
PBP_INLINE Vec<T> softplus(Vec<T> x) {
  return max(Vec<T>(0), x) + log1p_unit(exp(-abs(x)));
}

PBP_INLINE void normal(Vec<float> x, Vec<float>& cdf, Vec<float>& pdf) {
  constexpr int N = Vec<float>::N;
  PBP_EACH normal(x.v[i], cdf.v[i], pdf.v[i]);
}
PBP_INLINE void normal(Vec<double> x, Vec<double>& cdf, Vec<double>& pdf) {
  cdf = lane_by_lane(x, [](double a) __attribute__((always_inline)) { return 0.5 * ::erfc(-0.70710678118654752 * a); });
  pdf = exp(x * x * Vec<double>(-0.5)) * Vec<double>(0.39894228040143268);
}

// x to the power y, with C's special cases.
PBP_INLINE Vec<float> pow(Vec<float> x, Vec<float> y) {
  alignas(64) float a[kLanes], b[kLanes];
  x.store(a);
  y.store(b);
  for (int i = 0; i < kLanes; i += Vec<double>::L) {
    const Doubles p = pow(__builtin_convertvector(*(const HalfFloats*)(a + i), Doubles),
                          __builtin_convertvector(*(const HalfFloats*)(b + i), Doubles));
    *(HalfFloats*)(a + i) = __builtin_convertvector(p, HalfFloats);
  }
  return Vec<float>::load(a);
}
PBP_INLINE Vec<double> pow(Vec<double> x, Vec<double> y) {
  alignas(64) double a[kLanes], b[kLanes];
  x.store(a);
  y.store(b);
  for (int i = 0; i < kLanes; ++i) a[i] = ::pow(a[i], b[i]);
  return Vec<double>::load(a);
}

}  // namespace
}  // namespace pbp
