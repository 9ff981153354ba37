// embedding: rows of a table by id, with a dense or a row-sparse gradient.
#include "../kernels/export.h"
#include "../kernels/rows.h"

namespace pbp {
namespace {

struct EmbeddingPlan {
  int64_t rows;     // of the table
  int64_t padding;  // id whose row gets no gradient; -1: none
  bool sparse;
};

// y[i..., :] = weight[ids[i...], :]
struct Embedding : OpDefaults {
  static constexpr const char* name = "embedding";
  static bool infer(Infer& s) {
    if (!s.expect_inputs(2, 2) || !s.expect_float(1)) return false;
    const Shape &ids = s.in(0), &weight = s.in(1);
    if (weight.rank != 2)
      return s.fail("expects a table of shape (rows, width), but %s has shape %s", s.who(1), s.text(weight));
    if (!s.expect_int(0, 0, weight.dim[0], "ids")) return false;
    if (ids.rank == kMaxRank)
      return s.fail("takes ids of at most %d dimensions, but %s has shape %s", kMaxRank - 1, s.who(0), s.text(ids));
    auto& p = s.plan<EmbeddingPlan>();
    const int64_t v = weight.dim[0], width = weight.dim[1], n = ids.count();
    p.rows = v;
    p.padding = s.i("padding_idx", -1);
    p.sparse = s.i("sparse", 0) != 0;
    if (p.padding < -1 || p.padding >= v)
      return s.fail("padding_idx must be below %lld, the rows of the table, got %lld", (long long)v,
                    (long long)p.padding);
    if (p.sparse && (v > INT64_C(1) << 32 || n > INT64_C(1) << 32))
      return s.fail("sparse gradients need at most 2^32 rows and ids, got %lld and %lld", (long long)v, (long long)n);
    Shape y = ids;
    y.push(width);
    s.out(y);
    s.keep_in(0);
    s.no_gradient(0);
    const double row = 4 + 0.1 * double(width);
    if (ids.rank)
      s.rows(kForward, ids.dim[0], row * double(ids.count_from(1)), 1);
    else
      s.phase(kForward, 1, row);
    if (p.sparse) {
      s.sparse_gradient(1);
      s.phase(kBackward, 1, 10 * double(n));
      s.phase(kBackward, n, row);
      s.scratch(kBackward, 2 * n * int64_t(sizeof(uint64_t)));
    } else {
      s.accumulates(1);
      s.phase(kBackward, v, v ? 0.1 * double(width) + row * double(n) / double(v) : 0);
    }
    return true;
  }
  template <class T>
  static void forward(const Ctx<T>& c, const Task& t) {
    const int64_t per_row = c.in[0].shape.count_from(1);
    fetch_rows(c.x(1), c.ids(0), t.begin * per_row, t.end * per_row, c.in[1].dim(1), c.y());
  }
  // d_weight[r] = sum of dy[i] over i with ids[i] == r
  template <class T>
  static void backward(const Ctx<T>& c, const Task& t) {
    const auto& p = c.template planned<EmbeddingPlan>();
    if (!c.d_in[1].data) return;
    const int64_t n = c.in[0].count(), width = c.d_out[0].dim(-1);
    if (!p.sparse) return add_rows_owned(c.dy(), c.ids(0), n, width, t.begin, t.end, p.padding, c.add[1], c.dx(1));
    auto& g = *static_cast<SparseRows*>(c.d_in[1].data);
    uint64_t* key = static_cast<uint64_t*>(c.scratch);
    int64_t* first = reinterpret_cast<int64_t*>(key + n);  // of each distinct row: where its keys begin
    if (t.phase == 0)
      group(c.ids(0), n, uint64_t(p.rows), p.padding, key, first, g);
    else
      add_groups(c.dy(), n, width, key, first, t, g);
  }

 private:
  static PBP_INLINE void group(const int64_t* ids, int64_t n, uint64_t rows, int64_t padding, uint64_t* key,
                               int64_t* first, SparseRows& g) {
    int64_t m = 0;
    for (int64_t i = 0; i < n; ++i)
      if (ids[i] != padding) key[m++] = uint64_t(ids[i]) << 32 | uint64_t(i);
    sort_ids(key, reinterpret_cast<uint64_t*>(first), m, rows);
    g.count = 0;
    for (int64_t i = 0; i < m; ++i)
      if (i == 0 || key[i] >> 32 != key[i - 1] >> 32) {
        first[g.count] = i;
        g.rows[g.count++] = int64_t(key[i] >> 32);
      }
    // The end of the last group: in `first` where there is room, else it is the end of `key`.
    if (g.count < n) first[g.count] = m;
  }

  // Tasks own sorted positions: a group belongs to the task in which it begins.
  template <class T>
  static void add_groups(const T* dy, int64_t n, int64_t width, const uint64_t* key, const int64_t* first,
                         const Task& t, SparseRows& g) {
    int64_t low = 0, high = g.count;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (first[middle] < t.begin)
        low = middle + 1;
      else
        high = middle;
    }
    T* values = static_cast<T*>(g.values);
    for (int64_t k = low; k < g.count && first[k] < t.end; ++k) {
      const int64_t end = k + 1 < n ? first[k + 1] : n;
      T* to = values + k * width;
      memcpy(to, dy + int64_t(key[first[k]] & 0xffffffffu) * width, size_t(width) * sizeof(T));
      for (int64_t i = first[k] + 1; i < end; ++i) add_row(to, dy + int64_t(key[i] & 0xffffffffu) * width, width);
    }
  }
};

constexpr OpEntry kOps[] = {pbp_op<Embedding>()};

}  // namespace
}  // namespace pbp

PBP_EXPORT(embedding, kOps)
