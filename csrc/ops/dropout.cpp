// dropout: y = x m / (1 - rate) with m in {0, 1}, 1 with probability 1 - rate; m comes from kernels/random.h.
#include "../kernels/export.h"
#include "../kernels/random.h"

namespace pbp {
namespace {

struct DropoutPlan {
  double scale;
  int64_t index;
  uint32_t threshold;  // numbers below it drop their element
};

struct Dropout : OpDefaults {
  static constexpr const char* name = "dropout";
  static bool infer(Infer& s) {
    if (!s.expect_inputs(1, 1) || !s.expect_float(0)) return false;
    const double rate = s.f("rate", 0.5);
    if (!(rate >= 0 && rate < 1)) return s.fail("rate must be at least 0 and less than 1, got %g", rate);
    auto& p = s.plan<DropoutPlan>();
    p.index = s.i("index", 0);
    const bool on = s.training();
    const double limit = rate * 4294967296.0;  // rates beyond 1 - 2^-32 keep one element in 2^32
    p.threshold = !on ? 0 : limit < 4294967295.0 ? uint32_t(limit) : 4294967295u;
    p.scale = on ? 1 / (1 - rate) : 1;
    s.out_like(0);
    const Shape& x = s.in(0);
    const double cost = 0.3 * double(x.count_from(1)) + 3;
    for (int pass = kForward; pass <= kBackward; ++pass) {
      if (x.rank)
        s.rows(Pass(pass), x.dim[0], cost, 1);
      else
        s.phase(Pass(pass), 1, cost);
    }
    return true;
  }
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    mask(c, t, c.in[0].shape, c.x(0), c.y());
  }
  // dx = dy m / (1 - rate)
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    mask(c, t, c.d_in[0].shape, c.dy(), c.dx(0));
  }

 private:
  template <class T>
  static void mask(const Ctx<T>& c, const Task& t, const Shape& shape, const T* from, T* to) {
    const auto& p = c.template planned<DropoutPlan>();
    const int64_t columns = shape.count_from(1);
    from += t.begin * columns;
    to += t.begin * columns;
    if (p.threshold == 0 && p.scale == 1) {
      memcpy(to, from, size_t((t.end - t.begin) * columns) * sizeof(T));
      return;
    }
    const uint64_t stream = random_stream(*c.run, p.index);
    const T scale = T(p.scale);
    for (int64_t row = t.begin; row < t.end; ++row, from += columns, to += columns) {
      const RandomRow random(stream, c.run->row0 + row);
      // A product, not a choice: NaN and infinity stay visible where they are dropped.
      int64_t j = 0;
      for (; j + kLanes <= columns; j += kLanes)
        (Vec<T>::load(from + j) * unless_below(random.draw(j), p.threshold, scale)).store(to + j);
      if (j < columns) {
        const int64_t n = columns - j;
        (Vec<T>::load(from + j, n) * unless_below(random.draw(j), p.threshold, scale)).store(to + j, n);
      }
    }
  }
};

constexpr OpEntry kOps[] = {pbp_op<Dropout>()};

}  // namespace
}  // namespace pbp

PBP_EXPORT(dropout, kOps)
