// An immutable program, and its bindings to memory. Any number of threads may run one program at a time: each run takes
// a binding of its own from a pool.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "plan.h"
#include "team.h"

namespace pbp {

// A plan resolved to addresses: one arena, the parameters where they lie now, a gradient span.
class Binding {
 public:
  explicit Binding(std::shared_ptr<const Plan> plan) : plan_(std::move(plan)) {}

  // Resolves every address again if the arena, the gradients or any parameter moved. gradients[k]: where the k-th
  // wanted parameter's gradient goes (null for others).
  void bind(const std::shared_ptr<Block>& arena, const std::vector<char*>& gradients, int threads);
  void grow(int threads);                                          // private memory for so many threads; addresses stay
  void release() { arena_.reset(); }                               // gives the arena back; the next bind resolves again
  void rebind(int threads) { bind(arena_, gradients_, threads); }  // only if parameters moved or the team grew

  // To be held during a run: to read, or, in a training, to write those of what it changes. Current as long as
  // `current` says so; both are to be asked with the GIL, under which parameters move.
  const std::vector<GateUse>& gates() const { return gates_; }
  bool current() const { return epoch_ == storage_epoch(); }

  bool bound_to(const Block* arena) const { return arena_.get() == arena; }
  void poison();              // guarded plans only, like the next: before the inputs are filled in
  void check_guards() const;  // after a run; throws runtime_error
  void begin();               // before every run: what another program may have overwritten in a shared arena

  // updates[k] is run on the k-th wanted parameter where an item can do so as soon as its gradient is final, and not
  // at all elsewhere. Empty: nowhere.
  void set_updates(const std::vector<const Update*>& updates);
  bool has_updates() const { return !updates_.empty(); }

  // Input i is read from `at`, which must stay until the run is over, or again from the arena (null).
  void place_input(int i, const void* at);

  const Plan& plan() const { return *plan_; }
  void* input(int i) const { return address(plan_->inputs[size_t(i)].buffer); }
  void* address(int buffer) const { return addresses_[size_t(buffer)]; }
  void* address(const Operand& o) const { return address(o.buffer); }
  const SparseRows& sparse(int slot) const { return rows_[size_t(slot)]; }

  // Jobs [first, last), as thread `thread` of `threads`; the barrier before the first one is the caller's. `marks`
  // (timeline.h) hears of each.
  template <class M>
  void run_jobs(int first, int last, int thread, int threads, Barrier& barrier, M& marks) const;
  void run_host(int item) const;  // throws HostError

  // Everything, on up to `threads` threads. Returns how many took part.
  int run(int threads);

  RunState state;
  Barrier barrier;

 private:
  int64_t local_stride() const { return plan_->local_bytes + (plan_->guarded ? kAlign : 0); }
  void resolve();
  void install_updates();

  std::shared_ptr<const Plan> plan_;
  std::shared_ptr<Block> arena_;
  std::vector<std::shared_ptr<Block>> storage_;  // of the parameters: kept alive while bound
  std::vector<GateUse> gates_;
  std::vector<char*> gradients_;
  uint64_t epoch_ = 0;
  int threads_ = 0;
  std::vector<void*> addresses_;
  std::vector<NodeCtx> contexts_;
  std::vector<View> views_;
  std::unique_ptr<bool[]> adds_;
  std::vector<SparseRows> rows_;
  std::vector<const Update*> updates_, by_item_;  // by wanted parameter; by d_in of all items
  std::vector<std::vector<size_t>> input_views_;  // of each input: its views
  std::unique_ptr<Block> local_;
};

class Program {
 public:
  Program(const Graph& graph, std::vector<int> outputs, int loss, std::vector<int> wrt, std::vector<int> keep,
          int threads, bool guarded = false);

  // A binding with an arena and a gradient span of its own, returned to the pool afterwards.
  struct Lease {
    Lease(Program& p);
    ~Lease();
    Lease(const Lease&) = delete;
    Program& program;
    std::unique_ptr<Binding> binding;
  };

  // ValueError if an integer input holds a value that would index out of range.
  void check_ints(int input, const int64_t* values, int64_t n) const;

  // Threads for one run: the forced number, or what the policy allows and the work is worth.
  int threads_for(bool many_steps) const;

  const std::shared_ptr<const Plan> plan;
  const int forced_threads;
  std::atomic<int> threads_used{0};

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Binding>> pool_;
};

std::string describe(const Plan& plan);

}  // namespace pbp
