// What the plan itself needs between nodes: copies, sums and zeros between views of one shape with any strides. A task
// is one element, in the order of memory written.
#include "../kernels/copy.h"
#include "../kernels/loops.h"

namespace pbp {
namespace {

// Axes from the widest step in `to` to the narrowest, joined where both views allow.
PBP_INLINE Box box_of(const View& to, const View& from) {
  int order[kMaxRank];
  for (int d = 0; d < to.rank(); ++d) {
    int k = d;
    for (; k > 0 && to.stride[order[k - 1]] < to.stride[d]; --k) order[k] = order[k - 1];
    order[k] = d;
  }
  Box b;
  for (int k = 0; k < to.rank(); ++k) b.push(to.dim(order[k]), to.stride[order[k]], from.stride[order[k]]);
  return b;
}

// Elements [begin, end) of the box: runs along the last axis, and whole planes where `from` is contiguous along the one
// before it.
template <class Move, class T>
PBP_INLINE void move_box(const Box& b, T* to, const T* from, int64_t begin, int64_t end) {
  if (begin >= end) return;
  if (b.rank == 0) return Move::run(1, to, 1, from, 1);
  const int last = b.rank - 1;
  const int64_t width = b.n[last];
  const bool turned = b.rank > 1 && b.to[last] == 1 && b.from[last] != 1 && b.from[last - 1] == 1;
  int64_t index[kMaxRank], at = begin % width, rest = begin / width;
  for (int d = last - 1; d >= 0; --d) {
    index[d] = rest % b.n[d];
    rest /= b.n[d];
    to += index[d] * b.to[d];
    from += index[d] * b.from[d];
  }
  for (;;) {
    int64_t rows = 1;
    if (turned && at == 0 && end - begin >= width) {
      rows = (end - begin) / width;
      if (rows > b.n[last - 1] - index[last - 1]) rows = b.n[last - 1] - index[last - 1];
      Move::plane(rows, width, to, b.to[last - 1], from, b.from[last]);
      begin += rows * width;
    } else {
      const int64_t n = end - begin < width - at ? end - begin : width - at;
      Move::run(n, to + at * b.to[last], b.to[last], from + at * b.from[last], b.from[last]);
      begin += n;
    }
    if (begin >= end) return;
    at = 0;
    for (int d = last - 1; d >= 0; --d, rows = 1) {
      to += rows * b.to[d];
      from += rows * b.from[d];
      if ((index[d] += rows) < b.n[d]) break;
      index[d] = 0;
      to -= b.n[d] * b.to[d];
      from -= b.n[d] * b.from[d];
    }
  }
}

struct Internal : OpDefaults {
  static constexpr bool has_backward = false;
  static bool infer(Infer&) { return true; }
};

// out = in
struct Copy : Internal {
  static constexpr const char* name = "_copy";
  template <class T>
  static PBP_INLINE void run(int64_t n, T* to, int64_t to_step, const T* from, int64_t from_step) {
    copy_run(n, to, to_step, from, from_step);
  }
  template <class T>
  static PBP_INLINE void plane(int64_t rows, int64_t columns, T* to, int64_t to_row, const T* from, int64_t from_row) {
    transpose_plane(rows, columns, to, to_row, from, from_row);
  }
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    move_box<Copy>(box_of(c.out[0], c.in[0]), c.y(), c.x(0), t.begin, t.end);
  }
};

// out += in
struct Accumulate : Internal {
  static constexpr const char* name = "_accumulate";
  template <class T>
  static PBP_INLINE void run(int64_t n, T* to, int64_t to_step, const T* from, int64_t from_step) {
    if (to_step == 1 && from_step == 1)
      map<T>(n, [](Vec<T> a, Vec<T> b) __attribute__((always_inline)) { return a + b; }, to, to, from);
    else
      for (int64_t i = 0; i < n; ++i) to[i * to_step] += from[i * from_step];
  }
  template <class T>
  static PBP_INLINE void plane(int64_t rows, int64_t columns, T* to, int64_t to_row, const T* from, int64_t from_row) {
    alignas(64) T tile[kLanes * kLanes];
    for (int64_t i0 = 0; i0 < rows; i0 += kLanes)
      for (int64_t j0 = 0; j0 < columns; j0 += kLanes) {
        const int64_t m = rows - i0 < kLanes ? rows - i0 : kLanes, n = columns - j0 < kLanes ? columns - j0 : kLanes;
        transpose_plane(m, n, tile, kLanes, from + j0 * from_row + i0, from_row);
        for (int64_t i = 0; i < m; ++i) run(n, to + (i0 + i) * to_row + j0, 1, tile + i * kLanes, 1);
      }
  }
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    move_box<Accumulate>(box_of(c.out[0], c.in[0]), c.y(), c.x(0), t.begin, t.end);
  }
};

// out = 0
struct Zero : Internal {
  static constexpr const char* name = "_zero";
  template <class T>
  static PBP_INLINE void run(int64_t n, T* to, int64_t to_step, const T*, int64_t) {
    if (to_step == 1)
      memset(to, 0, size_t(n) * sizeof(T));
    else
      for (int64_t i = 0; i < n; ++i) to[i * to_step] = T(0);
  }
  template <class T>
  static PBP_INLINE void plane(int64_t, int64_t, T*, int64_t, const T*, int64_t) {}  // never asked: nothing is read
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    move_box<Zero>(box_of(c.out[0], c.out[0]), c.y(), static_cast<const T*>(c.y()), t.begin, t.end);
  }
};

constexpr OpEntry kOps[] = {pbp_op<Copy>(), pbp_op<Accumulate>(), pbp_op<Zero>()};

}  // namespace
}  // namespace pbp

PBP_EXPORT(internal, kOps)
