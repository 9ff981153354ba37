// From a graph to an immutable list of jobs over one arena: absorption, backward, liveness, offsets, barriers.
// Everything a run could trip over is settled here.
#pragma once
#include <memory>
#include <vector>

#include "graph.h"

namespace pbp {

// Where a buffer's bytes come from when a program is bound.
enum class Space : uint8_t { arena, param, grad, constant };

struct Buffer {
  Space space = Space::arena;
  int64_t bytes = 0;          // a multiple of kAlign; in a guarded plan with a band of as much at its end
  int64_t used = 0;           // without rounding
  int64_t offset = 0;         // arena: assigned by liveness
  int index = -1;             // param, grad: number in Plan::params / Plan::wrt; constant: number in the graph
  int first = -1, last = -1;  // items between which an arena buffer lives
  bool persistent = false;    // readable after the run
};

// An operand as the plan knows it: a buffer under a shape.
struct Operand {
  int buffer = -1;  // -1: absent, View::data is null
  View view;        // data unset
};

struct SparseSlot {
  int rows, values;  // buffers
  int64_t width, capacity;
  int wrt;
};

// One pass over one node, or a copy the plan itself put in.
struct Item {
  TaskFn fn = nullptr;
  std::shared_ptr<HostOp> host;
  Pass pass = kForward;
  std::shared_ptr<Node::PlanBytes> plan;
  std::vector<Operand> in, out, saved, d_in, d_out;
  std::vector<uint8_t> add;
  std::vector<int> sparse;  // per d_in: index into Plan::sparse, or -1
  std::vector<int> early;   // per d_in: index into Plan::wrt of a parameter this item may update itself, or -1
  int scratch = -1;
  int64_t local = 0;
  std::vector<Phase> phases;
  std::string op;     // "linear"; "function" for the host's
  std::string label;  // "Sequential[0] (linear) backward"
};

// One phase of one item, as threads execute it.
struct Job {
  TaskFn fn;
  int item;
  int phase;     // index into Item::phases
  int number;    // Task::phase
  int64_t n;     // tasks, or rows
  bool barrier;  // wait for everybody before it
};

// Jobs [first, last) run in one parallel region; then `host` (an item), unless -1.
struct Segment {
  int first, last, host;
};

class Plan {
 public:
  Plan(const Graph& graph, std::vector<int> outputs, int loss, std::vector<int> wrt, std::vector<int> keep,
       bool guarded);

  const bool guarded;  // for tests (guard.cpp): no two buffers share memory
  DType dtype;
  std::string isa;
  std::vector<Buffer> buffers;
  std::vector<Item> items;
  std::vector<Job> jobs;
  std::vector<Segment> segments;
  std::vector<SparseSlot> sparse;
  std::vector<ParamPtr> params;
  std::vector<Constant> constants;
  std::vector<Operand> inputs;
  std::vector<DType> input_types;
  std::vector<std::string> input_names;
  std::vector<IntRange> ranges;
  std::vector<Operand> outputs;
  std::vector<DType> output_types;

  struct Wanted {
    Operand gradient;  // dense: in the gradient span (parameters) or the arena (inputs)
    ParamPtr param;    // null for inputs
    int sparse = -1;
  };
  std::vector<Wanted> wrt;
  std::vector<std::pair<Operand, Operand>> kept;  // value, gradient

  struct Commit {
    ParamPtr target;
    Operand value;  // buffer -1: increment
  };
  std::vector<Commit> commits;

  int one = -1;  // buffer that holds the gradient of the loss: 1
  // The job at whose barrier the first output, the loss, is final for every thread, if no parameter is updated before
  // that (Item::early); else -1.
  int judged = -1;
  int64_t arena_bytes = 0;
  int64_t local_bytes = 0;  // a thread
  double cost = 0;          // ns on one thread
  bool has_host = false;
  int barriers = 0;

 private:
  struct Builder;
};

}  // namespace pbp
