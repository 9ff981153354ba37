// The contract between an op and everything else. Op code is compiled once per instruction set, so this page holds
// plain data and forced-inline accessors only: nothing here may leave an out-of-line copy in an object file.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define PBP_INLINE inline __attribute__((always_inline))

namespace pbp {

constexpr int kMaxRank = 8;
constexpr int64_t kAlign = 64;  // bytes: every buffer starts on a cache line

enum class DType : uint8_t { f32, f64, i64 };
enum Pass : int { kForward = 0, kBackward = 1 };
constexpr int kInstead = 16;  // Task::phase of the first phase declared after Infer::instead

struct Shape {
  int rank = 0;
  int64_t dim[kMaxRank] = {0, 0, 0, 0, 0, 0, 0, 0};

  PBP_INLINE int64_t operator[](int i) const { return dim[i < 0 ? i + rank : i]; }
  PBP_INLINE void push(int64_t n) { dim[rank++] = n; }
  PBP_INLINE int64_t count() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dim[i];
    return n;
  }
  // Elements in one index of the leading `lead` dimensions.
  PBP_INLINE int64_t count_from(int lead) const {
    int64_t n = 1;
    for (int i = lead; i < rank; ++i) n *= dim[i];
    return n;
  }
  PBP_INLINE bool same(const Shape& o) const {
    if (rank != o.rank) return false;
    for (int i = 0; i < rank; ++i)
      if (dim[i] != o.dim[i]) return false;
    return true;
  }
};

// A value as an op sees it. Strides are in elements. Unless the op called `any_layout(i)` in `infer`, every view it
// meets is dense and row-major. `data` is null for a gradient nobody wants.
struct View {
  void* data = nullptr;
  Shape shape;
  int64_t stride[kMaxRank] = {0, 0, 0, 0, 0, 0, 0, 0};

  PBP_INLINE int rank() const { return shape.rank; }
  PBP_INLINE int64_t dim(int i) const { return shape[i]; }
  PBP_INLINE int64_t step(int i) const { return stride[i < 0 ? i + shape.rank : i]; }
  PBP_INLINE int64_t count() const { return shape.count(); }
};

// What changes from run to run; the rest of a program is immutable.
struct RunState {
  uint64_t seed = 0;  // keys of counter-based random numbers: (seed, step, op index, global row, column)
  uint64_t step = 0;
  int64_t row0 = 0;  // number of this batch's first row within the step (micro-batches and shards shift it)
};

// How a finished piece of a parameter's gradient becomes new weights at once, while both are in cache (Infer::updates).
// A piece is `rows` runs of `cols` elements, `step` apart, from `offset` on, of the parameter as it is stored; g is the
// piece's first gradient.
struct Update {
  void (*run)(const Update&, const void* g, int64_t offset, int64_t rows, int64_t cols,
              int64_t step) noexcept = nullptr;
  int spans = 0;  // what `run` reads and writes besides g: the weights, then the optimizer's states
  char* span[4] = {};
};

// One node's operands, resolved to addresses for one arena.
struct NodeCtx {
  const void* plan = nullptr;   // what `infer` left in Infer::plan<P>()
  const View* in = nullptr;     // inputs; in backward only those kept by `keep_in`
  const View* out = nullptr;    // outputs; in backward only those kept by `keep_out`
  const View* saved = nullptr;  // buffers asked for with `save`, written by forward, read by backward
  const View* d_in = nullptr;   // backward stores here; data == nullptr: not wanted
  const View* d_out = nullptr;  // gradient of each output; data == nullptr: that output does not reach the loss (zero)
  const bool* add = nullptr;    // add[i]: add to d_in[i] instead of storing; only for inputs declared `accumulates(i)`
  void* scratch = nullptr;      // shared by the tasks of this pass; size declared with `scratch`; contents undefined
  const RunState* run = nullptr;
  const Update* const* update = nullptr;  // update[i], if both are there: to be run on each final piece of d_in[i]

  PBP_INLINE const Update* updates(int i) const { return update ? update[i] : nullptr; }
};

// A contiguous run of tasks given to one thread. In a rows phase `begin`/`end` are row numbers. The split depends on
// the number of threads, so results must not depend on where it falls.
struct Task {
  int phase;
  int64_t begin, end;
  void* local;  // this thread's private bytes, declared with `local`; contents undefined
};

// Typed face of NodeCtx for op code: `c.x(0)` is input 0 as T*.
template <class T>
struct Ctx : NodeCtx {
  PBP_INLINE explicit Ctx(const NodeCtx& n) : NodeCtx(n) {}
  PBP_INLINE const T* x(int i) const { return static_cast<const T*>(in[i].data); }
  PBP_INLINE const int64_t* ids(int i) const { return static_cast<const int64_t*>(in[i].data); }
  PBP_INLINE T* y(int i = 0) const { return static_cast<T*>(out[i].data); }
  PBP_INLINE T* kept(int i = 0) const { return static_cast<T*>(saved[i].data); }
  PBP_INLINE T* dx(int i) const { return static_cast<T*>(d_in[i].data); }
  PBP_INLINE const T* dy(int i = 0) const { return static_cast<const T*>(d_out[i].data); }
  template <class P>
  PBP_INLINE const P& planned() const {
    return *static_cast<const P*>(plan);
  }
};

using TaskFn = void (*)(const NodeCtx&, const Task&);

// Elementwise functions also offer themselves as rows, so that a neighbour (linear) can absorb them.
// forward: y[i] = f(x[i]).  backward: dx[i] = dy[i] * f'(…), given x or y as `needs` says; dx may be dy.
struct RowFn {
  void (*forward)(const void* plan, const void* x, void* y, int64_t n);
  void (*backward)(const void* plan, const void* x, const void* y, const void* dy, void* dx, int64_t n);
};

class Infer;   // core/infer.cpp
class Absorb;  // core/absorb.cpp

enum OpFlags : uint32_t {
  kAlias = 1,        // out[0] is in[0] under another shape; no kernel
  kRowFnNeedsX = 2,  // RowFn::backward reads x (else only y)
  kNoGradient = 4,   // has no backward at all (argmax, comparisons)
};

// One op, as one instruction set's object exports it. Index 0 of each pair is float, 1 is double.
struct OpEntry {
  const char* name;
  bool (*infer)(Infer&);
  TaskFn forward[2];
  TaskFn backward[2];
  RowFn row[2];
  bool (*absorb)(Absorb&);  // may this op take its only consumer into itself? null: it absorbs nothing
  uint32_t flags;
};

struct OpTable {
  const OpEntry* ops;
  int count;
};

// The shape rule's workbench: reads inputs and attributes, declares outputs, what backward needs, and how the work is
// cut. Every method lives in core/infer.cpp, compiled once for all instruction sets.
class Infer {
 public:
  struct Impl;
  explicit Infer(Impl* impl) : p_(impl) {}

  // Inputs.
  int n_in() const;
  const Shape& in(int i) const;
  bool is_int(int i) const;
  const char* who(int i) const;  // "input 0", "Sequential[1] (relu)", "parameter 0.weight": for messages
  bool training() const;         // the graph was made for training
  bool bf16() const;             // a float graph whose instruction set and CPU have half-width products

  // Attributes, as given to Graph::node. An attribute nobody asks for is an error: "unknown option".
  bool has(const char* name) const;
  double f(const char* name, double otherwise) const;
  int64_t i(const char* name, int64_t otherwise) const;
  int ints(const char* name, int64_t* values, int max) const;  // how many there are; -1 if absent
  int floats(const char* name, double* values, int max) const;

  // Errors: `return s.fail("expects …, got %s", …)`. The prefix "[op] where: " is added. Always false.
  bool fail(const char* format, ...) __attribute__((format(printf, 2, 3)));
  const char* text(const Shape&);  // "(3, 4)", valid until infer returns
  bool expect_inputs(int least, int most);
  bool expect_float(int i);                                       // not integer
  bool expect_int(int i, int64_t low, int64_t high,               // integer; values in [low, high) or == exempt,
                  const char* what, int64_t exempt = INT64_MIN);  // checked at every entrance ("labels", "ids")

  // Outputs, in order.
  void out(const Shape&);
  void out_like(int input);

  // What backward reads (everything else may be overwritten once the forward consumers are done).
  void keep_in(int i);
  void keep_out(int i = 0);
  int save(const Shape&);       // a buffer of T, index into ctx.saved
  int save_ints(const Shape&);  // a buffer of int64_t
  void no_gradient(int i);      // input i never gets a gradient (labels, ids, running statistics)
  void constant_out(int i);     // output i is taken as a constant by backward (new running statistics)
  void accumulates(int i);      // backward can add to d_in[i] at no cost (see NodeCtx::add)
  void any_layout(int i);  // input i, and its gradient, may be a view with any strides (a transposed, padded weight)
  void updates(int i);     // backward runs NodeCtx::update[i] in its last phase, and reads input i in earlier ones only
  void sparse_gradient(int i);  // the gradient of parameter i is rows: see SparseRows

  // How the work is cut; the sum of costs decides how many threads take part. `cost` is nanoseconds on one thread.
  // rows: one phase whose tasks own rows [begin, end) of n: they write only those rows of every buffer they write. Bit
  // i of `local` says that input i too is only read at the task's own rows, so that no barrier is needed when the same
  // rows were written just before by the same thread. Outputs, saved buffers and their gradients are taken as local.
  void rows(Pass, int64_t n, double cost_per_row, uint32_t local = 0);
  // phase: `tasks` independent tasks; a barrier stands before and after.
  void phase(Pass, int64_t tasks, double cost_per_task);
  // instead: phases and scratch of this pass declared after it take the place of those before, in a program that trains
  // input `trained` and does not want the gradient of input `i`.
  void instead(Pass, int i, int trained);
  void scratch(Pass, int64_t bytes);
  void local(Pass, int64_t bytes);

  // A small plain struct kept with the node and handed to forward and backward: `auto& p = s.plan<MyPlan>();`
  template <class P>
  PBP_INLINE P& plan() {
    static_assert(sizeof(P) <= 512, "a plan is a few numbers");
    return *static_cast<P*>(plan_bytes(sizeof(P)));
  }
  void* plan_bytes(size_t n);  // zeroed on the first call, the same bytes on later ones

 private:
  Impl* p_;
};

// Asked of an op about its only consumer. Answer true after `take(…)` decides; core then drops the consumer's node, and
// this node's output becomes the consumer's.
class Absorb {
 public:
  struct Impl;
  explicit Absorb(Impl* impl) : p_(impl) {}
  const char* next() const;     // the consumer's op
  const RowFn* row_fn() const;  // for this graph's dtype; null if the consumer is no elementwise function
  bool row_fn_needs_x() const;
  const void* row_plan() const;  // the consumer's plan bytes (at most 64), to be copied
  size_t row_plan_size() const;
  template <class P>
  PBP_INLINE P& plan() {  // this op's own plan, to be amended
    return *static_cast<P*>(plan_bytes());
  }
  void keep_out();                                 // backward now reads this node's (new) output
  int save_like_output();                          // one more saved buffer in the output's shape
  void add_cost(double forward, double backward);  // nanoseconds per element of the output

 private:
  void* plan_bytes();
  Impl* p_;
};

// A row-sparse gradient: d_in[i].data of a parameter declared `sparse_gradient(i)` points at this. Rows are distinct
// and ascending; `values` is (capacity, width) of T.
struct SparseRows {
  int64_t count;
  int64_t width;
  int64_t capacity;  // the number of ids in the batch
  int64_t* rows;
  void* values;
};

// Adapts `template <class T> static void forward(const Ctx<T>&, const Task&)` to the plain pointers of OpEntry.
template <class Op, class T>
static void run_forward(const NodeCtx& n, const Task& t) {
  Op::template forward<T>(Ctx<T>(n), t);
}
template <class Op, class T>
static void run_backward(const NodeCtx& n, const Task& t) {
  Op::template backward<T>(Ctx<T>(n), t);
}

}  // namespace pbp

// The last lines of an op file:
//   constexpr OpEntry kOps[] = {pbp_op<Relu>(), …};      (kernels/export.h)
//   PBP_EXPORT(activations, kOps)
// PBP_ISA is the suffix of the level being compiled: v2, v3, v4, neon.
