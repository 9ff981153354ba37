// What all losses share: reading the reduction, and the last step from weighted losses to one number.
#pragma once
#include <math.h>

#include "export.h"
#include "reduce.h"
#include "wide.h"

namespace pbp {
namespace {

enum Reduction : int { kNone = 0, kMean = 1, kSum = 2, kBatchMean = 3 };

// The attribute `reduction`, at most `last`; -1 after an error.
static inline int read_reduction(Infer& s, int last) {
  const int64_t r = s.i("reduction", kMean);
  if (r < kNone || r > last) {
    s.fail("reduction must be 0 (none), 1 (mean) or 2 (sum)%s, got %lld", last == kBatchMean ? " or 3 (batchmean)" : "",
           static_cast<long long>(r));
    return -1;
  }
  return int(r);
}

// n numbers in one column: (n) or (n, 1).
PBP_INLINE bool is_column(const Shape& shape, int64_t n) {
  return shape.rank >= 1 && shape.rank <= 2 && shape[0] == n && shape.count() == n;
}

// Sample weights: input i must hold one number for each of n rows. They get no gradient.
static inline bool expect_weights(Infer& s, int i, int64_t n) {
  if (!s.expect_float(i)) return false;
  s.no_gradient(i);
  if (is_column(s.in(i), n)) return true;
  return s.fail("expects one sample weight for each of %lld rows, but %s is %s", static_cast<long long>(n), s.who(i),
                s.text(s.in(i)));
}

// n <= 16 elements, a whole vector or a tail.
template <class T>
PBP_INLINE Vec<T> fetch(const T* p, int64_t n) {
  return n == kLanes ? Vec<T>::load(p) : Vec<T>::load(p, n);
}
template <class T>
PBP_INLINE void put(Vec<T> v, T* p, int64_t n) {
  if (n == kLanes)
    v.store(p);
  else
    v.store(p, n);
}

}  // namespace
}  // namespace pbp
