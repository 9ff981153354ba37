#include "stepper.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "error.h"
#include "threads.h"

namespace pbp {
namespace {

constexpr int64_t kPiece = 8192;  // elements of one fixed piece of the gradient norm
constexpr int64_t kChunk = 2048;  // elements one thread updates at a time
constexpr int64_t kEarlyElements = 4096;
constexpr size_t kBoundPrograms = 16;  // programs whose bindings a stepper keeps
constexpr double kSweepCost = 0.2;     // ns an element
constexpr double kWorthFork = 20000;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Exponents of infinities and NaNs have all bits set.
template <class T, class Bits, Bits kExponent>
struct AddSpan {
  // y = x, or y += x; whether all of y is finite then. Comparisons of integers vectorise, those of floats would not.
  static bool run(const void* from, void* to, int64_t n, bool add) {
    const T* x = static_cast<const T*>(from);
    T* y = static_cast<T*>(to);
    Bits bad = 0;
    const auto put = [&](int64_t i, T value) {
      Bits bits;
      std::memcpy(&bits, &value, sizeof bits);
      bad |= (bits & kExponent) == kExponent ? ~Bits(0) : Bits(0);
      y[i] = value;
    };
    if (add)
      for (int64_t i = 0; i < n; ++i) put(i, y[i] + x[i]);
    else
      for (int64_t i = 0; i < n; ++i) put(i, x[i]);
    return bad == 0;
  }
};
using AddFloats = AddSpan<float, uint32_t, 0x7f800000u>;
using AddDoubles = AddSpan<double, uint64_t, 0x7ff0000000000000u>;

int64_t share(int64_t n, int thread, int threads) { return (n * thread + threads - 1) / threads; }

}  // namespace

Stepper::Stepper(StepperOptions options, std::vector<ParamPtr> params, std::vector<int> groups,
                 std::vector<std::map<std::string, double>> hyper)
    : options_(std::move(options)),
      level_(&level(options_.isa)),
      rule_(&level_->rule(options_.rule)),
      params_(std::move(params)),
      groups_(std::move(groups)),
      dtype_(params_.empty() ? DType::f32 : params_[0]->dtype),
      item_(size_of(dtype_)) {
  if (groups_.size() != params_.size()) throw ValueError("groups expects one number a parameter");
  for (int g : groups_)
    if (g < 0 || size_t(g) >= hyper.size()) throw ValueError("a parameter's group is out of range");
  if (options_.accumulate < 1)
    throw ValueError("accumulate must be at least 1, got " + std::to_string(options_.accumulate));
  for (size_t k = 0; k < params_.size(); ++k)
    if (std::find(params_.begin(), params_.begin() + int64_t(k), params_[k]) != params_.begin() + int64_t(k))
      throw ValueError("a parameter is given twice");
  for (const ParamPtr& p : params_) {
    if (p->dtype != dtype_ || p->dtype == DType::i64)
      throw TypeError("the parameters of one optimizer must all be float32 or all float64");
    if (p->sparse && !rule_->sparse)
      throw ValueError("the rule " + options_.rule +
                       " has no row-sparse form: use SGD, Adagrad or Adam, or sparse=False");
    if (p->sparse && options_.accumulate > 1)
      throw ValueError("accumulate > 1 does not work with row-sparse gradients: use sparse=False");
    offsets_.push_back(p->sparse ? 0 : span_);
    if (!p->sparse) span_ += round_up(p->extent() * item_, kAlign);
  }
  numbers_.resize(hyper.size());
  set_hyper(hyper);
  grad_ = std::make_unique<Block>(span_);
  if (options_.accumulate > 1) sum_ = std::make_unique<Block>(span_);
  size_t n_states = 0;
  while (rule_->states[n_states]) ++n_states;
  sparse_states_.resize(n_states);
  for (size_t s = 0; s < n_states; ++s) {
    states_.push_back(std::make_unique<Block>(span_));
    for (const ParamPtr& p : params_)
      sparse_states_[s].push_back(p->sparse ? std::make_unique<Block>(p->extent() * item_) : nullptr);
    if (rule_->initial_state[s] == 0) continue;
    for (size_t k = 0; k < params_.size(); ++k) {
      const int64_t n = params_[k]->shape.count();
      std::vector<char> logical(size_t(n * item_));
      for (int64_t i = 0; i < n; ++i) {
        if (dtype_ == DType::f32)
          reinterpret_cast<float*>(logical.data())[i] = float(rule_->initial_state[s]);
        else
          reinterpret_cast<double*>(logical.data())[i] = rule_->initial_state[s];
      }
      from_logical(*params_[k], logical.data(), state(s, k));
    }
  }
  squares_.resize(size_t(span_ / item_ / kPiece + 1));
}

void Stepper::set_hyper(const std::vector<std::map<std::string, double>>& hyper) {
  if (hyper.size() != numbers_.size()) throw ValueError("hyper expects one set of numbers a group");
  std::vector<std::vector<double>> values;
  std::vector<double> scales;
  for (const auto& given : hyper) {
    std::vector<double> h;
    std::string known = "lr_scale";
    double scale = 1;
    for (int i = 0; rule_->hyper[i]; ++i) {
      h.push_back(rule_->defaults[i]);
      known += std::string(", ") + rule_->hyper[i];
    }
    for (const auto& [name, v] : given) {
      int at = -1;
      for (int i = 0; rule_->hyper[i]; ++i)
        if (name == rule_->hyper[i]) at = i;
      if (name == "lr_scale")
        scale = v;
      else if (at < 0)
        throw ValueError("the rule " + options_.rule + " has no option " + name + "; it has " + known);
      else
        h[size_t(at)] = v;
    }
    values.push_back(h);
    scales.push_back(scale);
  }
  hyper_ = std::move(values);
  lr_scale_ = std::move(scales);
}

void* Stepper::state(size_t s, size_t k) const {
  if (params_[k]->sparse) return sparse_states_[s][k]->data();
  return states_[s]->data() + offsets_[k];
}

double Stepper::gradient_scale() const { return summed_ > 0 ? 1.0 / double(summed_) : 1.0; }

void Stepper::zero_grad() {
  micro = summed_ = rows_done_ = 0;
  last_ = nullptr;
}

// The sweep's work but for the parameters in `updated`. Parameters that lie side by side and share a group become one
// run of chunks, so the whole model is usually one sweep.
std::vector<Stepper::Chunk> Stepper::cut(const std::vector<const Update*>& updated) const {
  auto swept = [&](size_t k) { return !params_[k]->sparse && (updated.empty() || !updated[k]); };
  std::vector<Chunk> chunks;
  for (size_t k = 0; k < params_.size();) {
    if (!swept(k)) {
      ++k;
      continue;
    }
    char* const w = params_[k]->data();
    int64_t bytes = 0;
    size_t last = k;
    for (; last < params_.size() && swept(last) && groups_[last] == groups_[k] && params_[last]->data() == w + bytes &&
           offsets_[last] == offsets_[k] + bytes;
         ++last)
      bytes += round_up(params_[last]->extent() * item_, kAlign);
    for (int64_t at = 0; at < bytes; at += kChunk * item_) {
      Chunk c;
      c.group = groups_[k];
      c.w = w + at;
      c.g = current_gradients() + offsets_[k] + at;
      for (size_t s = 0; s < states_.size(); ++s) c.state[s] = states_[s]->data() + offsets_[k] + at;
      c.n = std::min(kChunk * item_, bytes - at) / item_;
      chunks.push_back(c);
    }
    k = last;
  }
  return chunks;
}

void Stepper::bind_params() {
  if (epoch_ == storage_epoch()) return;
  epoch_ = storage_epoch();
  chunks_ = cut({});
}

void Stepper::update_early(Bound& bound) {
  if (!bound.early.empty() && !bound.binding->has_updates()) bound.binding->set_updates(bound.updates);
}

// Whether a step may update a parameter as soon as its own gradient is final: not if all gradients have to be seen
// first. A small model is one short sweep at the end.
bool Stepper::updates_early() const {
  return options_.accumulate == 1 && !(options_.clip_norm > 0) && span_ / item_ >= kEarlyElements;
}

void Stepper::bind_updates(Bound& bound) {
  if (bound.epoch == epoch_) return;
  bound.epoch = epoch_;
  bound.binding->set_updates({});
  bound.early.clear();
  bound.updates.assign(params_.size(), nullptr);
  if (!updates_early() || bound.program->plan->judged < 0) return;
  for (const Item& item : bound.program->plan->items)
    for (int k : item.early) {
      if (k < 0) continue;
      auto e = std::make_unique<Early>();
      e->stepper = this;
      e->group = groups_[size_t(k)];
      e->span[e->spans++] = params_[size_t(k)]->data();
      for (const auto& s : states_) e->span[e->spans++] = s->data() + offsets_[size_t(k)];
      e->run = [](const Update& u, const void* g, int64_t offset, int64_t rows, int64_t cols, int64_t step) noexcept {
        const Early& early = static_cast<const Early&>(u);
        const Stepper& s = *early.stepper;
        const double clip = s.options_.clip_value > 0 ? s.options_.clip_value : INFINITY;
        void* state[kMaxOptimStates] = {};
        for (int i = 1; i < early.spans; ++i) state[i - 1] = early.span[i] + offset * s.item_;
        s.sweep_finite(early.group, 1.0, clip, early.span[0] + offset * s.item_, static_cast<const char*>(g), state,
                       {rows, cols, step});
      };
      bound.updates[size_t(k)] = e.get();
      bound.early.push_back(std::move(e));
    }
  if (!bound.early.empty()) bound.rest = cut(bound.updates);
}

Binding& Stepper::prepare(const std::shared_ptr<Program>& program) {
  auto at = std::find_if(bound_.begin(), bound_.end(), [&](const Bound& b) { return b.program == program; });
  if (at == bound_.end()) {
    const Plan& plan = *program->plan;
    bool ours = plan.wrt.size() == params_.size() && !plan.outputs.empty() && plan.outputs[0].view.count() == 1 &&
                plan.output_types[0] == plan.dtype;
    for (size_t k = 0; ours && k < params_.size(); ++k) ours = plan.wrt[k].param == params_[k];
    if (!ours)
      throw ValueError(
          "the program was not made for this stepper: its first output must be the loss, its gradients those of the "
          "parameters");
    if (bound_.size() >= kBoundPrograms) {
      if (last_ == bound_.front().binding.get()) last_ = nullptr;
      bound_.erase(bound_.begin());
    }
    bound_.emplace_back();
    bound_.back().program = program;
    bound_.back().binding = std::make_unique<Binding>(program->plan);
    at = bound_.end() - 1;
  } else if (at + 1 != bound_.end()) {
    std::rotate(at, at + 1, bound_.end());
    at = bound_.end() - 1;
  }
  Binding& b = *at->binding;
  const Plan& plan = *program->plan;
  // Whatever the last run left in the arena is overwritten from here on.
  if (last_ != &b) last_ = nullptr;
  if (!arena_ || arena_->bytes() < plan.arena_bytes) {
    for (Bound& other : bound_) other.binding->release();
    arena_ = std::make_shared<Block>(plan.arena_bytes);
  }
  bind_params();
  if (b.bound_to(arena_.get()) && last_program_ == program.get()) {
    b.rebind(1);
    bind_updates(*at);
    return b;
  }
  std::vector<char*> gradients;
  for (size_t k = 0; k < params_.size(); ++k) gradients.push_back(grad_->data() + offsets_[k]);
  b.bind(arena_, gradients, 1);
  bind_updates(*at);
  last_program_ = program.get();
  return b;
}

int Stepper::threads_for(const Program* program, bool many_steps) const {
  if (options_.threads) return options_.threads;
  if (program && program->forced_threads) return program->forced_threads;
  const double sweep = double(span_ / item_) * kSweepCost;
  if (program && program->threads_for(many_steps) > 1) return thread_count();
  return sweep > kWorthFork ? thread_count() : 1;
}

void Stepper::begin(Binding& b) {
  b.begin();
  b.state.seed = seed;
  b.state.step = uint64_t(steps);
  b.state.row0 = rows_done_;
  bad_gradient_.store(false, std::memory_order_relaxed);
  refusal_.why = Refused::no;
}

bool Stepper::finite_loss(const Binding& b) const { return !watching_ || std::isfinite(output(b, 0)); }

void Stepper::refuse(const Binding& b, Refused why) {
  refusal_ = {why, output(b, 0), b.state, why == Refused::loss ? 1 : micro + 1};
  last_ = nullptr;
  if (why != Refused::loss) micro = summed_ = rows_done_ = 0;
}

double Stepper::output(const Binding& b, size_t j) const {
  const void* at = b.address(b.plan().outputs[j]);
  return b.plan().dtype == DType::f32 ? double(*static_cast<const float*>(at)) : *static_cast<const double*>(at);
}

void Stepper::prepare_numbers(double lr) {
  for (size_t g = 0; g < numbers_.size(); ++g)
    rule_->prepare(hyper_[g].data(), lr * lr_scale_[g], steps + 1, numbers_[g]);
}

void Stepper::accumulate(int thread, int threads) {
  const int64_t n = span_ / item_;
  const int64_t from = share(n, thread, threads), to = share(n, thread + 1, threads);
  if (from >= to) return;
  const auto add = dtype_ == DType::f32 ? AddFloats::run : AddDoubles::run;
  if (!add(grad_->data() + from * item_, sum_->data() + from * item_, to - from, micro > 0))
    bad_gradient_.store(true, std::memory_order_relaxed);
}

// The same answer in every thread.
bool Stepper::finite_gradients(int thread, int threads, Barrier& barrier, const Binding* b) {
  const auto finite = level_->rules->finite[dtype_ == DType::f64];
  const int64_t n = span_ / item_;
  const bool sparse = b && !b->plan().sparse.empty();
  if (n <= kEarlyElements && !sparse) return finite(current_gradients(), n);  // sooner done than waited for
  const int64_t from = share(n, thread, threads), to = share(n, thread + 1, threads);
  bool good = from >= to || finite(current_gradients() + from * item_, to - from);
  if (sparse)
    for (size_t s = 0; s < b->plan().sparse.size(); ++s) {
      const SparseRows& r = b->sparse(int(s));
      const int64_t first = share(r.count, thread, threads) * r.width,
                    last = share(r.count, thread + 1, threads) * r.width;
      good = good && finite(static_cast<const char*>(r.values) + first * item_, last - first);
    }
  if (!good) bad_gradient_.store(true, std::memory_order_relaxed);
  if (threads > 1) barrier.wait();
  return !bad_gradient_.load(std::memory_order_relaxed);
}

// The update of those elements whose gradient is finite. Which they are does not depend on where a piece was cut.
void Stepper::sweep_finite(int group, double scale, double clip, char* w, const char* g, void* const* state,
                           const Extent& extent) const {
  const auto finite = level_->rules->finite[dtype_ == DType::f64];
  const auto sweep = [&](int64_t at, const Extent& part) {
    void* own[kMaxOptimStates] = {};
    for (int s = 0; s < kMaxOptimStates; ++s)
      if (state[s]) own[s] = static_cast<char*>(state[s]) + at * item_;
    rule_->sweep[dtype_ == DType::f64](numbers_[size_t(group)], scale, clip, w + at * item_, g + at * item_, own, part);
  };
  // Few enough at a time that the gradient is still in L1 when it is read again.
  const int64_t n = std::min(extent.n, kChunk), rows = std::max<int64_t>(1, kChunk / std::max<int64_t>(n, 1));
  for (int64_t r = 0; r < extent.rows; r += rows)
    for (int64_t i = 0; i < extent.n; i += n) {
      const int64_t at = r * extent.step + i;
      const Extent part{std::min(rows, extent.rows - r), std::min(n, extent.n - i), extent.step};
      bool good = true;
      for (int64_t k = 0; k < part.rows; ++k) good = good && finite(g + (at + k * part.step) * item_, part.n);
      if (good) {
        sweep(at, part);
        continue;
      }
      bad_gradient_.store(true, std::memory_order_relaxed);
      for (int64_t k = 0; k < part.rows; ++k)
        for (int64_t j = 0; j < part.n; ++j)
          if (const int64_t one = at + k * part.step + j; finite(g + one * item_, 1)) sweep(one, {1, 1, 0});
    }
}

// Norm, clip, sweep. Every thread adds up the same pieces in the same order, so the scale is the same everywhere.
// False, in every thread: the gradients are not finite, and nothing has changed. Where parameters are updated as soon
// as their own gradient is final, the rest is updated like them: see Refused::piece. To look through all of a large
// span first would cost an eighth more memory traffic.
bool Stepper::apply(int thread, int threads, Barrier& barrier, const Binding* b, const std::vector<Chunk>& chunks,
                    double scale) {
  const bool f64 = dtype_ == DType::f64, each = (b && b->has_updates()) || (watching_ && updates_early());
  if (options_.clip_norm > 0) {
    const int64_t n = span_ / item_, pieces = (n + kPiece - 1) / kPiece;
    for (int64_t i = share(pieces, thread, threads); i < share(pieces, thread + 1, threads); ++i)
      squares_[size_t(i)] =
          level_->rules->square_sum[f64](current_gradients() + i * kPiece * item_, std::min(kPiece, n - i * kPiece));
    if (threads > 1) barrier.wait();
    double total = 0;
    for (int64_t i = 0; i < pieces; ++i) total += squares_[size_t(i)];
    if (b)
      for (size_t s = 0; s < b->plan().sparse.size(); ++s) {
        const SparseRows& r = b->sparse(int(s));
        total += level_->rules->square_sum[f64](r.values, r.count * r.width);
      }
    const double norm = std::sqrt(total) * scale;
    if (watching_ && !std::isfinite(norm)) return false;
    scale *= std::min(1.0, options_.clip_norm / (norm + 1e-6));
  } else if (watching_ && !each && options_.accumulate == 1 && !finite_gradients(thread, threads, barrier, b)) {
    return false;
  }
  const double clip = options_.clip_value > 0 ? options_.clip_value : INFINITY;
  const auto sweep = rule_->sweep[f64];
  const int64_t n = int64_t(chunks.size());
  for (int64_t i = share(n, thread, threads); i < share(n, thread + 1, threads); ++i) {
    const Chunk& c = chunks[size_t(i)];
    if (each)
      sweep_finite(c.group, scale, clip, c.w, c.g, c.state, {1, c.n, 0});
    else
      sweep(numbers_[size_t(c.group)], scale, clip, c.w, c.g, c.state, {1, c.n, 0});
  }
  if (!b) return true;
  for (const SparseSlot& slot : b->plan().sparse) {
    if (slot.wrt < 0) continue;
    const SparseRows& r = b->sparse(int(&slot - b->plan().sparse.data()));
    const size_t k = size_t(slot.wrt);
    const int64_t width = r.width * item_;
    for (int64_t i = share(r.count, thread, threads); i < share(r.count, thread + 1, threads); ++i) {
      void* rows[kMaxOptimStates] = {};
      for (size_t s = 0; s < sparse_states_.size(); ++s) rows[s] = sparse_states_[s][k]->data() + r.rows[i] * width;
      char* const w = params_[k]->data() + r.rows[i] * width;
      const char* const g = static_cast<const char*>(r.values) + i * width;
      if (each)
        sweep_finite(groups_[k], scale, clip, w, g, rows, {1, r.width, 0});
      else
        sweep(numbers_[size_t(groups_[k])], scale, clip, w, g, rows, {1, r.width, 0});
    }
  }
  return true;
}

void Stepper::commit(const Binding& b) {
  for (const Plan::Commit& c : b.plan().commits) {
    if (c.value.buffer < 0)
      ++*reinterpret_cast<int64_t*>(c.target->data());
    else
      std::memcpy(c.target->data(), b.address(c.value), size_t(c.target->shape.count() * size_of(c.target->dtype)));
  }
}

// What every thread does after the jobs of one batch; the same answer in each, `piece` apart. The caller commits and
// counts afterwards.
template <class M>
Refused Stepper::iteration(Bound& bound, int thread, int threads, bool update, M& marks) {
  const Binding& b = *bound.binding;
  Barrier& barrier = bound.binding->barrier;
  const int jobs = int(b.plan().jobs.size());
  const std::vector<Chunk>& chunks = b.has_updates() ? bound.rest : chunks_;
  const bool nothing_left = update && chunks.empty() && b.plan().sparse.empty();
  if (nothing_left) return Refused::no;
  if (threads > 1) barrier.wait();
  marks.idle(jobs + kUpdate);
  if (!finite_loss(b)) return Refused::loss;
  if (options_.accumulate > 1) {
    accumulate(thread, threads);
    marks.busy(jobs + kAccumulate);
    if (threads > 1) barrier.wait();
    marks.idle(jobs + kUpdate);
    if (watching_ && bad_gradient_.load(std::memory_order_relaxed)) return Refused::gradient;
  }
  const double scale = options_.accumulate > 1 ? 1.0 / double(micro + 1) : 1.0;
  const bool applied = !update || apply(thread, threads, barrier, &b, chunks, scale);
  marks.busy(jobs + kUpdate);
  return applied ? Refused::no : Refused::gradient;
}

void Stepper::finished_batch(const Binding& b, bool updated) {
  last_ = &b;
  if (options_.accumulate > 1) summed_ = micro + 1;
  if (updated) {
    finished_update();
  } else if (options_.accumulate > 1) {
    ++micro;
    const std::vector<Operand>& in = b.plan().inputs;
    rows_done_ += in.empty() || in[0].view.rank() == 0 ? 0 : in[0].view.dim(0);
  }
}

void Stepper::finished_update() {
  micro = rows_done_ = 0;
  ++steps;
}

struct Stepper::Loop {
  Stepper& self;
  Bound& bound;
  Binding& b;
  bool update;
  const pbp_feeder* feeder;
  int64_t first, rows, batches;
  const double* lrs;
  double until;
  double* results;
  size_t recorded;            // outputs a batch leaves in `results`
  std::vector<void*> inputs;  // where the feeder writes
  int64_t done = 0;
  int64_t end = 0;                     // this region leaves before batch `end`
  const TeamChoice* choice = nullptr;  // leave as soon as the team drags, to be compared
  std::atomic<bool> failed{false};
  bool stop = false, finished = false;
  Timeline* timeline = nullptr;
  Hold* hold = nullptr;

  // The feeder writes into the arena.
  void take_inputs() {
    for (size_t k = 0; k < b.plan().inputs.size(); ++k) {
      b.place_input(int(k), nullptr);
      inputs.push_back(b.input(int(k)));
    }
  }

  // Batch i into the inputs: by thread 0, or by each thread its part.
  bool shared() const { return feeder && feeder->fill_part; }
  void fill(int64_t i, int thread, int threads) {
    const int64_t row = first + i * rows;
    if (feeder->fill_part(feeder->context, row, rows, inputs.data(), thread, threads) != 0) failed.store(true);
  }

  // Thread 0 alone.
  void open(int64_t i) {
    if (feeder && !shared()) {
      if (feeder->fill(feeder->context, first + i * rows, rows, inputs.data()) != 0) failed.store(true);
      if (failed.load()) return;
    }
    self.begin(b);
    update = self.updates_now();
    if (update) self.prepare_numbers(lrs[i]);
  }
  void close(int64_t i, Refused why) {
    for (size_t j = 0; j < recorded; ++j) results[size_t(i) * recorded + j] = self.output(b, j);
    done = i + 1;
    ++self.seen;
    if (why == Refused::no && self.bad_gradient_.load(std::memory_order_relaxed)) why = Refused::piece;
    if (why != Refused::no && self.watching_) {
      self.refuse(b, why);
      stop = finished = true;
      return;
    }
    self.commit(b);
    self.finished_batch(b, update);
    if (done == batches) {
      finished = true;
      return;
    }
    const double t = now();
    stop = t >= until;
    finished = stop || done == end || (choice && b.barrier.dragged() && choice->doubts(t));
    if (hold && !stop) hold->let_others_in();
  }

  template <class M>
  static void body(int thread, int threads, void* context) {
    Loop& l = *static_cast<Loop*>(context);
    const int jobs = int(l.b.plan().jobs.size());
    M marks(l.timeline, thread);
    int64_t i = l.done;
    if (l.shared()) l.fill(i, thread, threads);
    if (thread == 0) l.open(i);
    marks.busy(jobs + kFeed);
    if (threads > 1) l.b.barrier.wait();
    marks.idle(jobs + kFeed);
    while (!l.failed.load(std::memory_order_relaxed)) {
      // Before the first update within the backward pass the loss must be known to be finite.
      const int judged = l.b.has_updates() ? l.b.plan().judged : jobs;
      Refused why = Refused::no;
      l.b.run_jobs(0, judged, thread, threads, l.b.barrier, marks);
      if (judged < jobs) {
        if (threads > 1) l.b.barrier.wait();
        marks.idle(judged);
        if (l.self.finite_loss(l.b))
          l.b.run_jobs(judged, jobs, thread, threads, l.b.barrier, marks);
        else
          why = Refused::loss;
      }
      if (why == Refused::no) why = l.self.iteration(l.bound, thread, threads, l.update, marks);
      if (threads > 1) l.b.barrier.wait();
      marks.idle(jobs + kRest);
      if (thread == 0) l.close(i, why);
      marks.busy(jobs + kRest);
      marks.next();
      // The next batch's rows come in while thread 0 counts; if the region ends here, they will come again.
      if (l.shared() && i + 1 < l.batches) l.fill(i + 1, thread, threads);
      if (thread == 0 && !l.finished) l.open(i + 1);
      marks.busy(jobs + kFeed);
      if (threads > 1) l.b.barrier.wait();
      marks.idle(jobs + kFeed);
      if (l.finished) break;
      ++i;
    }
  }
};

// Regions until the loop is done: one, unless the team drags and is compared with a step on one thread.
void Stepper::run_loop(Loop& loop, bool many_steps) {
  TeamChoice& choice = loop.bound.choice;
  const bool fixed = fixed_threads(last_program_);
  const int allowed = threads_for(last_program_, many_steps);
  loop.b.grow(allowed);
  while (!loop.failed && !loop.stop && loop.done < loop.batches) {
    const bool measured = allowed > 1 && !fixed;
    const double begun = measured ? now() : 0;
    const int threads = measured ? choice.pick(allowed, begun) : allowed;
    const CoresInUse cores(threads, allowed, fixed);
    const bool ours = measured && cores.threads == threads;  // else other runs decide, and nothing is compared
    const int64_t before = loop.done;
    loop.end = ours && choice.probing() ? before + 1 : loop.batches;
    loop.choice = ours && threads > 1 ? &choice : nullptr;
    loop.finished = false;
    threads_used = run_team(cores.threads, loop.b.barrier, Loop::body<NoMarks>, &loop);
    if (!ours || loop.done == before) continue;
    const double ended = now();
    choice.record(threads, threads > 1 && loop.b.barrier.dragged(), (ended - begun) / double(loop.done - before),
                  ended);
  }
}

// Gradients of one batch, added to those accumulated; false if it was refused.
bool Stepper::compute(Binding& b) {
  if (b.has_updates()) b.set_updates({});
  begin(b);
  const int threads = threads_for(last_program_, false);
  b.grow(threads);
  threads_used = b.run(CoresInUse(threads, threads, fixed_threads(last_program_)).threads);
  ++seen;
  Refused why = finite_loss(b) ? Refused::no : Refused::loss;
  if (why == Refused::no && options_.accumulate > 1) {
    accumulate(0, 1);
    if (bad_gradient_.load(std::memory_order_relaxed)) why = Refused::gradient;
  }
  if (why == Refused::no) return true;
  refuse(b, why);
  return false;
}

double Stepper::backward(Binding& b) {
  if (compute(b)) {
    commit(b);
    finished_batch(b, false);
  }
  return output(b, 0);
}

Refused Stepper::apply_all(double lr) {
  prepare_numbers(lr);
  bad_gradient_.store(false, std::memory_order_relaxed);
  struct Call {
    Stepper& self;
    Barrier barrier;
    bool applied;
  } call{*this, {}, true};
  const int threads = threads_for(nullptr, false);
  const CoresInUse cores(threads, threads, options_.threads > 0);
  run_team(
      cores.threads, call.barrier,
      [](int thread, int n, void* context) {
        Call& c = *static_cast<Call*>(context);
        const bool applied = c.self.apply(thread, n, c.barrier, c.self.last_, c.self.chunks_, c.self.gradient_scale());
        if (thread == 0) c.applied = applied;
      },
      &call);
  if (!call.applied) return Refused::gradient;
  return bad_gradient_.load(std::memory_order_relaxed) ? Refused::piece : Refused::no;
}

void Stepper::update(double lr) {
  bind_params();
  if (!(options_.accumulate > 1 ? summed_ > 0 : last_ != nullptr))
    throw ValueError("update was called without gradients: call backward first");
  refusal_.why = apply_all(lr);
  if (refusal_.why == Refused::no) return finished_update();
  refusal_ = {refusal_.why, NAN, last_ ? last_->state : RunState{}, std::max<int64_t>(micro, 1)};
  zero_grad();
}

// One batch of a program whose host's ops need the calling thread between regions.
void Stepper::step_with_host(Binding& b, double lr) {
  const bool update = updates_now();
  if (!compute(b)) return;
  last_ = &b;
  if (options_.accumulate > 1) summed_ = micro + 1;
  const Refused why = update ? apply_all(lr) : Refused::no;
  if (why != Refused::no) return refuse(b, why);
  commit(b);
  finished_batch(b, update);
}

double Stepper::step(Binding& b, double lr) {
  double result[1];
  if (b.plan().has_host) {
    step_with_host(b, lr);
    return output(b, 0);
  }
  Bound& bound = bound_.back();
  update_early(bound);
  Loop loop{*this, bound, b, true, nullptr, 0, 0, 1, &lr, 0, result, 1, {}};
  run_loop(loop, false);
  return result[0];
}

int64_t Stepper::run(Binding& b, const pbp_feeder& feeder, int64_t first, int64_t rows, int64_t batches,
                     const double* lrs, double seconds, double* results, Hold& hold) {
  const double until = now() + seconds;
  Bound& bound = bound_.back();
  Loop loop{*this, bound, b, true, &feeder, first, rows, batches, lrs, until, results, b.plan().outputs.size(), {}};
  loop.hold = &hold;
  loop.take_inputs();
  if (b.plan().has_host) {
    for (int64_t i = 0; i < batches && !loop.stop; ++i) {
      if (loop.shared()) loop.fill(i, 0, 1);
      if (!loop.failed) loop.open(i);
      if (loop.failed) throw HostError();
      step_with_host(b, lrs[i]);
      const size_t n = b.plan().outputs.size();
      for (size_t j = 0; j < n; ++j) results[size_t(i) * n + j] = output(b, j);
      loop.done = i + 1;
      loop.stop = refusal_.why != Refused::no || now() >= until;
      if (!loop.stop) hold.let_others_in();
    }
    return loop.done;
  }
  update_early(bound);
  run_loop(loop, true);
  if (loop.failed) throw HostError();
  return loop.done;
}

void Stepper::profile(Binding& b, const pbp_feeder& feeder, int64_t rows, const double* lrs, Timeline& timeline) {
  expect_no_host(b.plan());
  Bound& bound = bound_.back();
  Loop loop{*this, bound, b, true, &feeder, 0, rows, timeline.steps, lrs, INFINITY, nullptr, 0, {}};
  loop.take_inputs();
  update_early(bound);
  struct Unwatched {
    bool& watching;
    explicit Unwatched(bool& w) : watching(w) { watching = false; }
    ~Unwatched() { watching = true; }
  } unwatched(watching_);
  loop.timeline = &timeline;
  b.grow(timeline.threads);
  const TickRate clock;
  timeline.threads = threads_used = run_team(timeline.threads, b.barrier, Loop::body<Marks>, &loop);
  timeline.tick = clock.seconds_per_tick();
  if (loop.failed) throw HostError();
}

}  // namespace pbp
