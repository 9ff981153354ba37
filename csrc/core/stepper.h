// Training: backward, reduce, update, over flat spans. Owns what belongs to one optimizer: gradients, states, the step
// count and the random position; the parameters themselves belong to the model.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "feeder.h"
#include "fork.h"
#include "program.h"
#include "timeline.h"

namespace pbp {

struct StepperOptions {
  std::string rule;
  double clip_norm = 0;   // 0: off. Global 2-norm over all gradients, as torch.nn.utils.clip_grad_norm_
  double clip_value = 0;  // 0: off. After clip_norm
  int accumulate = 1;     // batches averaged into one update
  std::string isa;
  int threads = 0;  // > 0: a team of exactly so many, no fallback
};

// Why a batch was not applied.
enum class Refused : uint8_t {
  no,
  loss,      // it is not finite: everything is as before the batch
  gradient,  // one is not finite: likewise, and an accumulation that had begun is forgotten
  piece,     // likewise, but found when parts had been updated: those with a finite gradient, and no others
};

struct Refusal {
  Refused why = Refused::no;
  double loss = 0;
  RunState state;       // of the run, for another one with the same random numbers
  int64_t batches = 1;  // lost: more than one if an accumulation was
};

class Stepper {
 public:
  Stepper(StepperOptions options, std::vector<ParamPtr> params, std::vector<int> groups,
          std::vector<std::map<std::string, double>> hyper);

  // A batch whose loss or gradients are not finite is refused: `refusal` says why until the next batch. A loss is seen
  // before any update. So are gradients, if nothing is updated within the backward pass.

  // The binding that `program` runs in here; its inputs are to be filled before `backward` or `step`. Call with the
  // lock held.
  Binding& prepare(const std::shared_ptr<Program>& program);

  double backward(Binding& b);         // gradients of one batch; returns the loss
  void update(double lr);              // applies them
  double step(Binding& b, double lr);  // both; the update on every `accumulate`-th call
  const Refusal& refusal() const { return refusal_; }

  // `batches` batches of `rows` rows from the feeder, beginning at row `first`, in one call; ends early after
  // `seconds`, and after a batch that was refused. results[i * outputs + j]: j-th output of the i-th batch. Returns the
  // batches done, a refused one included; throws HostError if the feeder failed.
  // Between batches it lets others in at the gates held.
  int64_t run(Binding& b, const pbp_feeder& feeder, int64_t first, int64_t rows, int64_t batches, const double* lrs,
              double seconds, double* results, Hold& hold);

  // Trains on the batches 0, 1, ... of `rows` rows as `run` does, one for each of the timeline's steps, on exactly its
  // threads; refuses none. ValueError if the program has ops of the host; throws HostError if the feeder failed.
  void profile(Binding& b, const pbp_feeder& feeder, int64_t rows, const double* lrs, Timeline& timeline);

  void set_hyper(const std::vector<std::map<std::string, double>>& hyper);
  int threads_for(const Program* program, bool many_steps) const;
  void zero_grad();  // forgets all gradients and a begun accumulation

  const std::vector<ParamPtr>& params() const { return params_; }
  const RuleEntry& rule() const { return *rule_; }
  void* gradient(size_t k) const { return current_gradients() + offsets_[k]; }
  double gradient_scale() const;  // what the gradient span is to be multiplied by: 1 / batches accumulated
  void* state(size_t s, size_t k) const;
  const Binding* last() const { return last_; }

  int64_t steps = 0;  // updates done
  int64_t micro = 0;  // batches in the accumulation that has begun
  int64_t seen = 0;   // batches run, refused ones included
  uint64_t seed = 0;
  int threads_used = 0;
  ForkMutex mutex;
  bool failed = false;  // the last call failed after its inputs had been accepted

 private:
  struct Chunk {  // a piece of one group's parameters, contiguous in every span
    int group;
    char *w, *g;
    void* state[kMaxOptimStates];
    int64_t n;
  };
  // Updates one parameter piece by piece, from within the backward pass.
  struct Early : Update {
    const Stepper* stepper;
    int group;
  };
  struct Bound {
    std::shared_ptr<Program> program;
    std::unique_ptr<Binding> binding;
    TeamChoice choice;
    uint64_t epoch = 0;                         // of the addresses below
    std::vector<std::unique_ptr<Early>> early;  // of the parameters the program can update itself
    std::vector<const Update*> updates;         // by parameter, null for the others
    std::vector<Chunk> rest;                    // what is left to the sweep then
  };
  struct Loop;

  char* current_gradients() const { return (options_.accumulate > 1 ? sum_ : grad_)->data(); }
  std::vector<Chunk> cut(const std::vector<const Update*>& updated) const;
  void bind_params();
  void bind_updates(Bound& bound);
  bool updates_early() const;
  void update_early(Bound& bound);
  void prepare_numbers(double lr);
  void run_loop(Loop& loop, bool many_steps);
  void accumulate(int thread, int threads);
  bool finite_gradients(int thread, int threads, Barrier& barrier, const Binding* b);
  void sweep_finite(int group, double scale, double clip, char* w, const char* g, void* const* state,
                    const Extent& extent) const;
  bool apply(int thread, int threads, Barrier& barrier, const Binding* b, const std::vector<Chunk>& chunks,
             double scale);
  Refused apply_all(double lr);
  void commit(const Binding& b);
  bool finite_loss(const Binding& b) const;
  bool compute(Binding& b);
  void step_with_host(Binding& b, double lr);
  void refuse(const Binding& b, Refused why);
  void begin(Binding& b);
  double output(const Binding& b, size_t j) const;
  template <class M>
  Refused iteration(Bound& bound, int thread, int threads, bool update, M& marks);
  bool fixed_threads(const Program* program) const {  // a team of exactly so many was asked for
    return options_.threads > 0 || program->forced_threads > 0;
  }
  bool updates_now() const { return micro + 1 >= options_.accumulate; }
  void finished_batch(const Binding& b, bool updated);
  void finished_update();

  const StepperOptions options_;
  const Level* level_;
  const RuleEntry* rule_;
  std::vector<ParamPtr> params_;
  std::vector<int> groups_;
  DType dtype_;
  int64_t item_;                            // bytes an element
  std::vector<std::vector<double>> hyper_;  // a group's numbers, in the rule's order
  std::vector<double> lr_scale_;
  std::vector<RuleNumbers> numbers_;
  int64_t span_ = 0;              // bytes of a span
  std::vector<int64_t> offsets_;  // of each dense parameter in a span; sparse ones lie apart
  std::unique_ptr<Block> grad_, sum_;
  int64_t summed_ = 0;                          // batches whose gradients are in sum_
  int64_t rows_done_ = 0;                       // rows of the batches in the accumulation that has begun
  std::vector<std::unique_ptr<Block>> states_;  // spans
  std::vector<std::vector<std::unique_ptr<Block>>> sparse_states_;  // [state][param], null for dense ones
  std::vector<Chunk> chunks_;
  std::vector<double> squares_;                    // a fixed piece of the gradient span each
  mutable std::atomic<bool> bad_gradient_{false};  // some thread has met one that is not finite, in this batch
  bool watching_ = true;
  Refusal refusal_;
  uint64_t epoch_ = 0;
  std::shared_ptr<Block> arena_;
  std::vector<Bound> bound_;               // most recently used last
  const Binding* last_ = nullptr;          // the last run's; null once its arena is being overwritten
  const Program* last_program_ = nullptr;  // of the binding that `prepare` gave out last: bound_.back()
};

}  // namespace pbp
