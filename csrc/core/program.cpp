#include "program.h"

#include <cstdio>

#include "error.h"
#include "threads.h"
#include "timeline.h"

namespace pbp {
namespace {

// Below these estimates (ns on one thread) a second thread costs more than it brings: a fork per call, or barriers
// alone when many steps share one region.
constexpr double kWorthFork = 20000, kWorthBarriers = 6000;

constexpr size_t kPooled = 8;  // idle bindings a program keeps

void set_one(DType t, void* at) {
  if (t == DType::f32)
    *static_cast<float*>(at) = 1;
  else
    *static_cast<double*>(at) = 1;
}

}  // namespace

void Binding::grow(int threads) {
  if (threads > threads_ && plan_->local_bytes) local_ = std::make_unique<Block>(local_stride() * threads);
  threads_ = std::max(threads, threads_);
}

void Binding::bind(const std::shared_ptr<Block>& arena, const std::vector<char*>& gradients, int threads) {
  grow(threads);
  if (arena == arena_ && gradients == gradients_ && epoch_ == storage_epoch()) return;
  arena_ = arena;
  gradients_ = gradients;
  epoch_ = storage_epoch();
  resolve();
}

void Binding::resolve() {
  const Plan& p = *plan_;
  storage_.clear();
  for (const ParamPtr& x : p.params) storage_.push_back(x->storage());
  gates_ = gates_of(p.params, false);
  for (const Plan::Wanted& w : p.wrt)
    if (w.param) gates_.push_back({w.param->gate(), true});
  for (const Plan::Commit& c : p.commits) gates_.push_back({c.target->gate(), true});
  settle(gates_);
  addresses_.resize(p.buffers.size());
  for (size_t b = 0; b < p.buffers.size(); ++b) {
    const Buffer& x = p.buffers[b];
    switch (x.space) {
      case Space::arena:
        addresses_[b] = arena_->data() + x.offset;
        break;
      case Space::param:
        addresses_[b] = p.params[size_t(x.index)]->data();
        break;
      case Space::grad:
        addresses_[b] = gradients_[size_t(x.index)];
        break;
      case Space::constant:
        addresses_[b] = p.constants[size_t(x.index)].data->data();
        break;
    }
  }
  rows_.clear();
  for (const SparseSlot& s : p.sparse)
    rows_.push_back({0, s.width, s.capacity, static_cast<int64_t*>(address(s.rows)), address(s.values)});

  size_t n_views = 0, n_adds = 0;
  for (const Item& item : p.items) {
    n_views += item.in.size() + item.out.size() + item.saved.size() + item.d_in.size() + item.d_out.size();
    n_adds += item.add.size();
  }
  input_views_.assign(p.inputs.size(), {});
  views_.clear();
  views_.reserve(n_views);
  adds_ = std::make_unique<bool[]>(std::max<size_t>(1, n_adds));
  contexts_.assign(p.items.size(), NodeCtx{});
  size_t at = 0;
  for (size_t i = 0; i < p.items.size(); ++i) {
    const Item& item = p.items[i];
    NodeCtx& c = contexts_[i];
    auto put = [&](const std::vector<Operand>& list) {
      const View* first = views_.data() + views_.size();
      for (const Operand& o : list) {
        View v = o.view;
        v.data = o.buffer < 0 ? nullptr : address(o.buffer);
        for (size_t k = 0; k < p.inputs.size(); ++k)
          if (o.buffer == p.inputs[k].buffer) input_views_[k].push_back(views_.size());
        views_.push_back(v);
      }
      return first;
    };
    c.plan = item.plan ? item.plan->b : nullptr;
    c.in = put(item.in);
    c.out = put(item.out);
    c.saved = put(item.saved);
    c.d_out = put(item.d_out);
    View* d_in = const_cast<View*>(put(item.d_in));
    for (size_t k = 0; k < item.sparse.size(); ++k)
      if (item.sparse[k] >= 0) d_in[k].data = &rows_[size_t(item.sparse[k])];
    c.d_in = d_in;
    c.add = adds_.get() + at;
    for (uint8_t a : item.add) adds_[at++] = a != 0;
    c.scratch = item.scratch >= 0 ? address(item.scratch) : nullptr;
    c.run = &state;
  }
  install_updates();
}

void Binding::set_updates(const std::vector<const Update*>& updates) {
  updates_ = updates;
  install_updates();
}

void Binding::install_updates() {
  size_t n = 0;
  for (const Item& item : plan_->items) n += item.early.size();
  by_item_.assign(n, nullptr);
  n = 0;
  for (size_t i = 0; i < plan_->items.size(); ++i) {
    const std::vector<int>& early = plan_->items[i].early;
    contexts_[i].update = nullptr;
    for (size_t k = 0; k < early.size(); ++k)
      if (early[k] >= 0 && !updates_.empty()) {
        by_item_[n + k] = updates_[size_t(early[k])];
        contexts_[i].update = by_item_.data() + n;
      }
    n += early.size();
  }
}

void Binding::place_input(int i, const void* at) {
  const int b = plan_->inputs[size_t(i)].buffer;
  void* const place = at ? const_cast<void*>(at) : arena_->data() + plan_->buffers[size_t(b)].offset;
  if (addresses_[size_t(b)] == place) return;
  addresses_[size_t(b)] = place;
  for (size_t v : input_views_[size_t(i)]) views_[v].data = place;
}

void Binding::begin() {
  if (plan_->one >= 0) set_one(plan_->dtype, address(plan_->one));
}

template <class M>
void Binding::run_jobs(int first, int last, int thread, int threads, Barrier& wait, M& marks) const {
  char* local = local_ ? local_->data() + local_stride() * thread : nullptr;
  const Job* jobs = plan_->jobs.data();
  for (int j = first; j < last; ++j) {
    const Job& job = jobs[j];
    if (job.barrier && threads > 1 && j > first) {
      wait.wait();
      marks.idle(j);
    }
    Task t{job.number, 0, job.n, local};
    if (threads > 1) {
      t.begin = (thread * job.n + threads - 1) / threads;
      t.end = ((thread + 1) * job.n + threads - 1) / threads;
    }
    if (t.begin < t.end) job.fn(contexts_[size_t(job.item)], t);
    marks.busy(j);
  }
}

template void Binding::run_jobs(int, int, int, int, Barrier&, NoMarks&) const;
template void Binding::run_jobs(int, int, int, int, Barrier&, Marks&) const;

void Binding::run_host(int i) const {
  const Item& item = plan_->items[size_t(i)];
  const NodeCtx& c = contexts_[size_t(i)];
  auto list = [](const View* v, size_t n) { return std::vector<View>(v, v + n); };
  const auto in = list(c.in, item.in.size()), out = list(c.out, item.out.size());
  if (item.pass == kForward)
    item.host->forward(in, out);
  else
    item.host->backward(in, out, list(c.d_out, item.d_out.size()), list(c.d_in, item.d_in.size()));
}

int Binding::run(int threads) {
  int took_part = threads;
  begin();
  struct Call {
    Binding* self;
    const Segment* segment;
  };
  for (const Segment& s : plan_->segments) {
    if (s.first < s.last) {
      Call call{this, &s};
      took_part = run_team(
          threads, barrier,
          [](int thread, int n, void* context) {
            const Call& c = *static_cast<Call*>(context);
            NoMarks marks(nullptr, thread);
            c.self->run_jobs(c.segment->first, c.segment->last, thread, n, c.self->barrier, marks);
          },
          &call);
    }
    if (s.host >= 0) run_host(s.host);
  }
  return took_part;
}

Program::Program(const Graph& graph, std::vector<int> outputs, int loss, std::vector<int> wrt, std::vector<int> keep,
                 int threads, bool guarded)
    : plan(std::make_shared<const Plan>(graph, std::move(outputs), loss, std::move(wrt), std::move(keep), guarded)),
      forced_threads(threads) {}

Program::Lease::Lease(Program& p) : program(p) {
  std::lock_guard<std::mutex> lock(p.mutex_);
  if (!p.pool_.empty()) {
    binding = std::move(p.pool_.back());
    p.pool_.pop_back();
    return;
  }
  const Plan& plan = *p.plan;
  int64_t bytes = plan.arena_bytes;
  std::vector<int64_t> at;
  for (const Plan::Wanted& w : plan.wrt) {
    at.push_back(bytes);
    if (w.param && w.sparse < 0)
      bytes += round_up(w.param->extent() * size_of(plan.dtype), kAlign) + (plan.guarded ? kAlign : 0);
  }
  auto arena = std::make_shared<Block>(bytes);
  std::vector<char*> gradients;
  for (size_t k = 0; k < plan.wrt.size(); ++k) gradients.push_back(arena->data() + at[k]);
  binding = std::make_unique<Binding>(p.plan);
  binding->bind(arena, gradients, 1);
}

Program::Lease::~Lease() {
  std::lock_guard<std::mutex> lock(program.mutex_);
  if (program.pool_.size() < kPooled) program.pool_.push_back(std::move(binding));
}

void Program::check_ints(int input, const int64_t* values, int64_t n) const {
  for (const IntRange& r : plan->ranges) {
    if (r.input != input) continue;
    for (int64_t i = 0; i < n; ++i)
      if ((values[i] < r.low || values[i] >= r.high) && values[i] != r.exempt)
        throw ValueError(r.where + (r.where.empty() ? "" : ": ") + r.what + " must be from " + std::to_string(r.low) +
                         " to " + std::to_string(r.high - 1) + ", got " + std::to_string(values[i]) + " at position " +
                         std::to_string(i) + " of " + plan->input_names[size_t(input)]);
  }
}

int Program::threads_for(bool many_steps) const {
  if (forced_threads) return forced_threads;
  if (plan->cost < (many_steps ? kWorthBarriers : kWorthFork)) return 1;
  return thread_count();
}

std::string describe(const Plan& plan) {
  std::string s;
  char line[256];
  for (const Job& j : plan.jobs) {
    const Item& item = plan.items[size_t(j.item)];
    const Phase& p = item.phases[size_t(j.phase)];
    std::snprintf(line, sizeof line, "%s%-48s phase %d  %6lld %s  %.0f ns\n", j.barrier ? "---- barrier\n" : "",
                  item.label.c_str(), j.phase, (long long)j.n, p.rows ? "rows" : "tasks", p.cost * double(p.tasks));
    s += line;
  }
  std::snprintf(line, sizeof line, "arena %lld bytes, %d barriers, about %.0f ns on one thread\n",
                (long long)plan.arena_bytes, plan.barriers, plan.cost);
  return s + line;
}

}  // namespace pbp
