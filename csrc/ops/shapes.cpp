// reshape, transpose, slice, concat, gather, broadcast_to: elements move, nothing is computed.
#include "../kernels/copy.h"
#include "../kernels/export.h"
#include "../kernels/reduce.h"
#include "../kernels/rows.h"

namespace pbp {
namespace {

// Rough nanoseconds to move one element: contiguous, and strided.
constexpr double kMove = 0.1, kGather = 0.4;

PBP_INLINE int64_t elements_per_row(const Shape& s) { return s.count_from(1); }

struct Reshape : OpDefaults {
  static constexpr const char* name = "reshape";
  static constexpr uint32_t flags = kAlias;
  static constexpr bool has_forward = false;
  static bool infer(Infer& s) {
    if (!s.expect_inputs(1, 1)) return false;
    const Shape& x = s.in(0);
    Shape y;
    const int rank = s.ints("shape", y.dim, kMaxRank);
    if (rank < 0) return s.fail("needs the option shape");
    y.rank = rank;
    int open = -1;
    int64_t known = 1;
    for (int i = 0; i < rank; ++i) {
      if (y.dim[i] == -1 && open >= 0) return s.fail("at most one dimension may be -1, got %s", s.text(y));
      if (y.dim[i] < -1) return s.fail("dimensions must be 0 or more, or -1, got %s", s.text(y));
      if (y.dim[i] == -1)
        open = i;
      else
        known *= y.dim[i];
    }
    const int64_t count = x.count();
    if (open >= 0 ? known == 0 || count % known : known != count)
      return s.fail("%s of shape %s has %lld elements, which do not fit %s", s.who(0), s.text(x), (long long)count,
                    s.text(y));
    if (open >= 0) y.dim[open] = count / known;
    s.out(y);
    return true;
  }
  template <class T>
  static void backward(const Ctx<T>&, const Task&) {}  // the gradient is an alias as well
};

// x itself, through which no gradient flows.
struct StopGradient : OpDefaults {
  static constexpr const char* name = "stop_gradient";
  static constexpr uint32_t flags = kAlias;
  static constexpr bool has_forward = false;
  static constexpr bool has_backward = false;
  static bool infer(Infer& s) {
    if (!s.expect_inputs(1, 1)) return false;
    s.no_gradient(0);
    s.out_like(0);
    return true;
  }
};

struct TransposePlan {
  int64_t perm[kMaxRank];
};

struct Transpose : OpDefaults {
  static constexpr const char* name = "transpose";
  static bool infer(Infer& s) {
    if (!s.expect_inputs(1, 1) || !s.expect_float(0)) return false;
    const Shape& x = s.in(0);
    auto& p = s.plan<TransposePlan>();
    const int n = s.ints("perm", p.perm, kMaxRank);
    if (n < 0) return s.fail("needs the option perm");
    if (n != x.rank) return s.fail("perm names %d dimensions, but %s has shape %s", n, s.who(0), s.text(x));
    Shape y;
    unsigned seen = 0;
    for (int i = 0; i < n; ++i) {
      if (p.perm[i] < 0) p.perm[i] += x.rank;
      if (p.perm[i] < 0 || p.perm[i] >= x.rank || (seen >> p.perm[i] & 1))
        return s.fail("perm must name each dimension of %s once", s.text(x));
      seen |= 1u << p.perm[i];
      y.push(x.dim[p.perm[i]]);
    }
    s.out(y);
    if (n == 0) {
      s.phase(kForward, 1, 1);
      s.phase(kBackward, 1, 1);
      return true;
    }
    const bool local = p.perm[0] == 0;
    s.rows(kForward, y.dim[0], kGather * double(elements_per_row(y)), local);
    if (local)
      s.rows(kBackward, x.dim[0], kGather * double(elements_per_row(x)));
    else
      s.phase(kBackward, x.dim[0], kGather * double(elements_per_row(x)));
    return true;
  }
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<TransposePlan>();
    permute(c.out[0].shape, c.in[0].shape, p.perm, c.x(0), c.y(), t);
  }
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<TransposePlan>();
    int64_t inverse[kMaxRank] = {0};
    for (int i = 0; i < c.d_in[0].rank(); ++i) inverse[p.perm[i]] = i;
    permute(c.d_in[0].shape, c.d_out[0].shape, inverse, c.dy(), c.dx(0), t);
  }

 private:
  // Rows [begin, end) of y, y[i_0, i_1, ...] = x[...] with y's dimension k being x's perm[k].
  template <class T>
  static void permute(const Shape& y, const Shape& x, const int64_t* perm, const T* from, T* to, const Task& t) {
    int64_t x_stride[kMaxRank], y_stride[kMaxRank];
    dense_strides(x, x_stride);
    dense_strides(y, y_stride);
    Box b;
    for (int i = 0; i < y.rank; ++i) b.push(i ? y.dim[i] : t.end - t.begin, y_stride[i], x_stride[perm[i]]);
    if (y.rank) {
      from += t.begin * x_stride[perm[0]];
      to += t.begin * y_stride[0];
    }
    copy_box(b, to, from);
  }
};

struct SlicePlan {
  int64_t start[kMaxRank], step[kMaxRank];
  bool whole_rows;  // dimension 0 is taken whole and in order
};

// y[i, j, ...] = x[start_0 + i step_0, start_1 + j step_1, ...]
struct Slice : OpDefaults {
  static constexpr const char* name = "slice";
  static bool infer(Infer& s) {
    if (!s.expect_inputs(1, 1) || !s.expect_float(0)) return false;
    const Shape& x = s.in(0);
    auto& p = s.plan<SlicePlan>();
    int64_t stop[kMaxRank];
    const int n[3] = {s.ints("start", p.start, kMaxRank), s.ints("stop", stop, kMaxRank),
                      s.ints("step", p.step, kMaxRank)};
    for (int k = 0; k < 3; ++k)
      if (n[k] != x.rank)
        return s.fail("start, stop and step need one number for each dimension of %s of shape %s", s.who(0), s.text(x));
    Shape y;
    for (int i = 0; i < x.rank; ++i) {
      const int64_t step = p.step[i], span = step > 0 ? stop[i] - p.start[i] : p.start[i] - stop[i];
      if (step == 0) return s.fail("step must not be 0");
      const int64_t size = step > 0 ? step : -step;
      y.push(span > 0 ? (span + size - 1) / size : 0);
      const int64_t last = p.start[i] + (y.dim[i] - 1) * step;
      if (y.dim[i] && (p.start[i] < 0 || p.start[i] >= x.dim[i] || last < 0 || last >= x.dim[i]))
        return s.fail("[%lld:%lld:%lld] leaves dimension %d of %s of shape %s", (long long)p.start[i],
                      (long long)stop[i], (long long)step, i, s.who(0), s.text(x));
    }
    s.out(y);
    if (x.rank == 0) {
      s.phase(kForward, 1, 1);
      s.phase(kBackward, 1, 1);
      return true;
    }
    p.whole_rows = p.start[0] == 0 && p.step[0] == 1 && y.dim[0] == x.dim[0];
    s.rows(kForward, y.dim[0], kMove * double(elements_per_row(y)), p.whole_rows);
    if (p.whole_rows)
      s.rows(kBackward, x.dim[0], kMove * double(elements_per_row(x)));
    else
      s.phase(kBackward, x.dim[0], kMove * double(elements_per_row(x)));
    return true;
  }
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    copy_slice(c.template planned<SlicePlan>(), c.in[0].shape, c.out[0].shape, t.begin, t.end, c.x(0), c.y(),
               [](const Box& b, T* to, const T* from) { copy_box(b, to, from); });
  }
  // The rows [t.begin, t.end) of dx: zero, but for what came from the slice.
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<SlicePlan>();
    const Shape &x = c.d_in[0].shape, &y = c.d_out[0].shape;
    if (x.rank == 0) {
      *c.dx(0) = *c.dy();
      return;
    }
    const int64_t row = elements_per_row(x);
    memset(c.dx(0) + t.begin * row, 0, size_t((t.end - t.begin) * row) * sizeof(T));
    int64_t begin = 0, end = y.dim[0];  // of y's rows those whose row of x is ours
    const int64_t step = p.step[0];
    if (step > 0) {
      begin = clamp(ceil_div(t.begin - p.start[0], step), end);
      end = clamp(ceil_div(t.end - p.start[0], step), end);
    } else {
      begin = clamp(ceil_div(p.start[0] - (t.end - 1), -step), end);
      end = clamp(ceil_div(p.start[0] - (t.begin - 1), -step), end);
    }
    // copy_slice counts `x` as the slice's source; here it is where the values go.
    copy_slice(p, x, y, begin, end, c.dx(0), c.dy(), [](Box b, const T* y_at, T* x_at) {
      for (int i = 0; i < b.rank; ++i) {
        const int64_t to = b.to[i];
        b.to[i] = b.from[i];
        b.from[i] = to;
      }
      copy_box(b, x_at, y_at);
    });
  }

 private:
  static PBP_INLINE int64_t ceil_div(int64_t a, int64_t b) { return a > 0 ? (a + b - 1) / b : -(-a / b); }
  static PBP_INLINE int64_t clamp(int64_t a, int64_t high) { return a < 0 ? 0 : a > high ? high : a; }

  // move(box, y, x) with the box from rows [begin, end) of the slice y to their places in x.
  template <class X, class Y, class Move>
  static PBP_INLINE void copy_slice(const SlicePlan& p, const Shape& xs, const Shape& ys, int64_t begin, int64_t end,
                                    X* x, Y* y, Move move) {
    int64_t x_stride[kMaxRank], y_stride[kMaxRank];
    dense_strides(xs, x_stride);
    dense_strides(ys, y_stride);
    Box b;
    for (int i = 0; i < ys.rank; ++i) {
      b.push(i ? ys.dim[i] : end - begin, y_stride[i], x_stride[i] * p.step[i]);
      x += x_stride[i] * (p.start[i] + (i ? 0 : begin * p.step[0]));
    }
    if (b.empty || (ys.rank && end <= begin)) return;
    move(b, ys.rank ? y + begin * y_stride[0] : y, x);
  }
};

struct ConcatPlan {
  int64_t dim;
};

struct Concat : OpDefaults {
  static constexpr const char* name = "concat";
  static bool infer(Infer& s) {
    const int n = s.n_in();
    if (n < 1) return s.fail("expects at least 1 input");
    const Shape& first = s.in(0);
    auto& p = s.plan<ConcatPlan>();
    p.dim = s.i("dim", 0);
    if (p.dim < 0) p.dim += first.rank;
    if (first.rank == 0) return s.fail("cannot join scalars, but %s has shape ()", s.who(0));
    if (p.dim < 0 || p.dim >= first.rank)
      return s.fail("dim %lld does not exist in %s of shape %s", (long long)s.i("dim", 0), s.who(0), s.text(first));
    Shape y = first;
    for (int k = 0; k < n; ++k) {
      if (!s.expect_float(k)) return false;
      const Shape& x = s.in(k);
      bool fits = x.rank == first.rank;
      for (int i = 0; fits && i < x.rank; ++i) fits = i == p.dim || x.dim[i] == first.dim[i];
      if (!fits)
        return s.fail("all inputs must agree but for dim %lld: %s gives %s, %s gives %s", (long long)p.dim, s.who(0),
                      s.text(first), s.who(k), s.text(x));
      if (k) y.dim[p.dim] += x.dim[p.dim];
    }
    s.out(y);
    const double cost = kMove * double(elements_per_row(y)) + 2;
    if (p.dim == 0) {
      s.rows(kForward, y.dim[0], cost);
      s.phase(kBackward, y.dim[0], cost);
    } else {
      s.rows(kForward, y.dim[0], cost + 2 * n, ~0u);
      s.rows(kBackward, y.dim[0], cost + 2 * n);
    }
    return true;
  }
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    each_part(c.out[0].shape, c.in, c.template planned<ConcatPlan>().dim, t,
              [&](int64_t n, int64_t y, const View& v, int64_t x) {
                memcpy(c.y() + y, static_cast<const T*>(v.data) + x, size_t(n) * sizeof(T));
              });
  }
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    each_part(c.d_out[0].shape, c.d_in, c.template planned<ConcatPlan>().dim, t,
              [&](int64_t n, int64_t y, const View& v, int64_t x) {
                if (v.data) memcpy(static_cast<T*>(v.data) + x, c.dy() + y, size_t(n) * sizeof(T));
              });
  }

 private:
  // move(n, y, part, x): n elements of y from y on are those of a part from x on. Covers rows [t.begin, t.end) of y.
  template <class Move>
  static PBP_INLINE void each_part(const Shape& y, const View* parts, int64_t dim, const Task& t, Move move) {
    const int64_t inner = y.count_from(int(dim) + 1), y_run = y.dim[dim] * inner;
    int64_t before = 0;  // where the part begins along dim
    for (int k = 0; before < y.dim[dim]; ++k) {
      const int64_t length = parts[k].shape.dim[dim], run = length * inner;
      if (dim == 0) {
        const int64_t begin = t.begin > before ? t.begin : before;
        const int64_t end = t.end < before + length ? t.end : before + length;
        if (begin < end) move((end - begin) * inner, begin * inner, parts[k], (begin - before) * inner);
      } else {
        int64_t outer = 1;
        for (int i = 1; i < dim; ++i) outer *= y.dim[i];
        for (int64_t o = t.begin * outer; o < t.end * outer; ++o)
          move(run, o * y_run + before * inner, parts[k], o * run);
      }
      before += length;
    }
  }
};

// y[i..., :] = x[ids[i...], :]
struct Gather : OpDefaults {
  static constexpr const char* name = "gather";
  static bool infer(Infer& s) {
    if (!s.expect_inputs(2, 2) || !s.expect_float(0)) return false;
    const Shape &x = s.in(0), &ids = s.in(1);
    if (x.rank == 0) return s.fail("needs rows to choose from, but %s is a scalar", s.who(0));
    if (!s.expect_int(1, 0, x.dim[0], "row numbers")) return false;
    if (ids.rank + x.rank - 1 > kMaxRank)
      return s.fail("rows of %s by numbers of shape %s make more than %d dimensions", s.text(x), s.text(ids), kMaxRank);
    Shape y = ids;
    for (int i = 1; i < x.rank; ++i) y.push(x.dim[i]);
    s.out(y);
    s.keep_in(1);
    s.no_gradient(1);
    s.accumulates(0);
    const int64_t n = ids.count(), width = elements_per_row(x), n0 = ids.rank ? ids.dim[0] : 1;
    const double row = 4 + kMove * double(width);
    if (ids.rank)
      s.rows(kForward, n0, n0 ? row * double(n) / double(n0) : 0, 2);
    else
      s.phase(kForward, 1, row);
    s.phase(kBackward, x.dim[0], x.dim[0] ? kMove * double(width) + row * double(n) / double(x.dim[0]) : 0);
    return true;
  }
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const int64_t per_row = elements_per_row(c.in[1].shape);
    fetch_rows(c.x(0), c.ids(1), t.begin * per_row, t.end * per_row, elements_per_row(c.in[0].shape), c.y());
  }
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    if (!c.dx(0)) return;
    add_rows_owned(c.dy(), c.ids(1), c.in[1].count(), elements_per_row(c.d_in[0].shape), t.begin, t.end, -1, c.add[0],
                   c.dx(0));
  }
};

struct BroadcastPlan {
  Groups g;  // the output's dimensions; reduced where x is repeated
  bool rows;
};

struct BroadcastTo : OpDefaults {
  static constexpr const char* name = "broadcast_to";
  static bool infer(Infer& s) {
    if (!s.expect_inputs(1, 1) || !s.expect_float(0)) return false;
    const Shape& x = s.in(0);
    Shape y;
    y.rank = s.ints("shape", y.dim, kMaxRank);
    if (y.rank < 0) return s.fail("needs the option shape");
    auto& p = s.plan<BroadcastPlan>();
    p.g = Groups();
    const int lead = y.rank - x.rank;
    bool fits = lead >= 0;
    for (int i = 0; fits && i < y.rank; ++i) {
      const int64_t from = i < lead ? 1 : x.dim[i - lead];
      if (y.dim[i] == -1) y.dim[i] = i < lead ? -1 : from;
      fits = y.dim[i] >= 0 && (from == 1 || from == y.dim[i]);
      if (fits) p.g.push(y.dim[i], from == y.dim[i]);
    }
    if (!fits) return s.fail("%s of shape %s cannot be repeated to %s", s.who(0), s.text(x), s.text(y));
    p.g.finish();
    s.out(y);
    p.rows = lead == 0 && y.rank && x.dim[0] == y.dim[0];
    const int64_t elements = y.count(), n0 = y.rank ? y.dim[0] : 1;
    const double row = kMove * double(elements_per_row(y)) + 2;
    if (y.rank)
      s.rows(kForward, n0, row, p.rows);
    else
      s.phase(kForward, 1, 1);
    const int64_t tasks = (p.g.outputs + kOutputsPerTask - 1) / kOutputsPerTask;
    if (p.rows)
      s.rows(kBackward, n0, row);
    else
      s.phase(kBackward, tasks, tasks ? kMove * double(elements) / double(tasks) : 0);
    return true;
  }
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const Shape &x = c.in[0].shape, &y = c.out[0].shape;
    int64_t x_stride[kMaxRank], y_stride[kMaxRank];
    dense_strides(x, x_stride);
    dense_strides(y, y_stride);
    Box b;
    int64_t x_row = 0;
    const int lead = y.rank - x.rank;
    for (int i = 0; i < y.rank; ++i) {
      const int64_t step = i < lead || x.dim[i - lead] != y.dim[i] ? 0 : x_stride[i - lead];
      if (i == 0) x_row = step;
      b.push(i ? y.dim[i] : t.end - t.begin, y_stride[i], step);
    }
    copy_box(b, y.rank ? c.y() + t.begin * y_stride[0] : c.y(), c.x(0) + t.begin * x_row);
  }
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<BroadcastPlan>();
    const int64_t step = p.rows ? elements_per_row(c.d_in[0].shape) : kOutputsPerTask;
    const int64_t end = t.end * step < p.g.outputs ? t.end * step : p.g.outputs;
    reduce_outputs(p.g, c.dy(), t.begin * step, end, Plain<T, SumOf<T>>{c.dx(0), T(1)});
  }
};

constexpr OpEntry kOps[] = {pbp_op<Reshape>(), pbp_op<StopGradient>(), pbp_op<Transpose>(),  pbp_op<Slice>(),
                            pbp_op<Concat>(),  pbp_op<Gather>(),       pbp_op<BroadcastTo>()};

}  // namespace
}  // namespace pbp

PBP_EXPORT(shapes, kOps)
