// Comparisons under NumPy's broadcasting: 1 where true, else 0. NaN is unequal to everything. No gradient.
#include "../kernels/broadcast.h"

namespace pbp {
namespace {

template <class Op>
struct Compare : BroadcastTest<Compare<Op>, 2> {
  static constexpr const char* name = Op::name;
  static constexpr double kForwardNs = 0.10;
  template <class T>
  static PBP_INLINE Vec<T> f(const Vec<T>* x) {
    return select(Op::test(x[0], x[1]), Vec<T>(1), Vec<T>(0));
  }
};

struct Greater {
  static constexpr const char* name = "greater";
  template <class T>
  static PBP_INLINE Mask<T> test(Vec<T> a, Vec<T> b) {
    return a > b;
  }
};
struct Less {
  static constexpr const char* name = "less";
  template <class T>
  static PBP_INLINE Mask<T> test(Vec<T> a, Vec<T> b) {
    return a < b;
  }
};
struct GreaterEqual {
  static constexpr const char* name = "greater_equal";
  template <class T>
  static PBP_INLINE Mask<T> test(Vec<T> a, Vec<T> b) {
    return a >= b;
  }
};
struct LessEqual {
  static constexpr const char* name = "less_equal";
  template <class T>
  static PBP_INLINE Mask<T> test(Vec<T> a, Vec<T> b) {
    return a <= b;
  }
};
struct Equal {
  static constexpr const char* name = "equal";
  template <class T>
  static PBP_INLINE Mask<T> test(Vec<T> a, Vec<T> b) {
    return a == b;
  }
};
struct NotEqual {
  static constexpr const char* name = "not_equal";
  template <class T>
  static PBP_INLINE Mask<T> test(Vec<T> a, Vec<T> b) {
    return a != b;
  }
};

constexpr OpEntry kOps[] = {pbp_op<Compare<Greater>>(),   pbp_op<Compare<Less>>(),  pbp_op<Compare<GreaterEqual>>(),
                            pbp_op<Compare<LessEqual>>(), pbp_op<Compare<Equal>>(), pbp_op<Compare<NotEqual>>()};

}  // namespace
}  // namespace pbp

PBP_EXPORT(compare, kOps)
