#include "team.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>

#include "crew.h"
#include "fork.h"
#include "spin.h"

namespace pbp {

void Barrier::wait() {
  const uint32_t round = round_.load(std::memory_order_acquire);
  if (waiting_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    waiting_.store(threads_, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  for (int spin = 0; round_.load(std::memory_order_acquire) == round; ++spin) {
    if (spin < kSpins) {
      spin_pause();
    } else {
      dragged_.store(true, std::memory_order_relaxed);
      sched_yield();
    }
  }
}

void TeamChoice::start(Mode mode) {
  mode_ = mode;
  runs_ = 0;
  sum_ = 0;
  dragged_ = false;
}

void TeamChoice::lose(double now) {
  mode_ = Mode::alone;
  alone_until_ = now + pause_;
  pause_ = pause_ < 1 ? 2 * pause_ : pause_;
}

int TeamChoice::pick(int threads, double now) {
  if (threads <= 1) return threads;
  if (mode_ == Mode::alone && now >= alone_until_) start(Mode::try_team);
  return mode_ == Mode::alone || mode_ == Mode::try_alone ? 1 : threads;
}

void TeamChoice::record(int threads, bool dragged, double seconds, double now) {
  constexpr int kTeamRuns = 4, kAloneRuns = 2;
  switch (mode_) {
    case Mode::alone:
      return;
    case Mode::team:
      if (threads > 1 && dragged && doubts(now)) start(Mode::try_team);
      return;
    case Mode::try_team:
      if (runs_++ == 0) return;  // it wakes the threads
      if (alone_ > 0 && seconds > 4 * alone_) return lose(now);
      sum_ += seconds;
      dragged_ = dragged_ || dragged;
      if (runs_ <= kTeamRuns) return;
      team_ = sum_ / kTeamRuns;
      if (dragged_) return start(Mode::try_alone);
      pause_ = 0.05;
      mode_ = Mode::team;
      return;
    case Mode::try_alone:
      if (runs_++ == 0) return;  // it fills this thread's caches
      sum_ += seconds;
      if (runs_ <= kAloneRuns) return;
      alone_ = sum_ / kAloneRuns;
      if (alone_ < team_) return lose(now);
      mode_ = Mode::team;
      trusted_until_ = now + (60 * alone_ > 0.5 ? 60 * alone_ : 0.5);
      return;
  }
}

namespace {

std::atomic<int> cores_in_use{0};
std::atomic<uint64_t> counted_since{0};  // forks by then

// Two that come at once may both be granted too much: the result is the same, and the next run sees it.
int occupy(int wanted, int allowed, bool forced) {
  if (wanted <= 1) return wanted;
  if (counted_since.exchange(fork_count(), std::memory_order_relaxed) != fork_count()) cores_in_use.store(0);
  const int left = allowed - cores_in_use.load(std::memory_order_relaxed);
  const int granted = forced || wanted < left ? wanted : left > 1 ? left : 1;
  cores_in_use.fetch_add(granted, std::memory_order_relaxed);
  return granted;
}

}  // namespace

CoresInUse::CoresInUse(int wanted, int allowed, bool forced)
    : threads(occupy(wanted, allowed, forced)), counted_(wanted > 1), born_(counted_ ? fork_count() : 0) {}

CoresInUse::~CoresInUse() {
  if (counted_ && born_ == fork_count()) cores_in_use.fetch_sub(threads, std::memory_order_relaxed);
}

FlushSubnormals::FlushSubnormals() : before_(0) {
#if defined(__x86_64__)
  before_ = _mm_getcsr();
  _mm_setcsr(unsigned(before_) | 0x8040u);  // flush to zero, denormals are zero
#elif defined(__aarch64__)
  asm volatile("mrs %0, fpcr" : "=r"(before_));
  asm volatile("msr fpcr, %0" : : "r"(before_ | (uint64_t(1) << 24)));
#endif
}

FlushSubnormals::~FlushSubnormals() {
#if defined(__x86_64__)
  _mm_setcsr(unsigned(before_));
#elif defined(__aarch64__)
  asm volatile("msr fpcr, %0" : : "r"(before_));
#endif
}

int run_team(int threads, Barrier& barrier, void (*body)(int, int, void*), void* context) {
  const bool alone = threads <= 1 || omp_in_parallel();
  if (!alone) {
    // Results do not depend on the number, and a runtime that cannot start its threads ends the process.
    static const int processors = omp_get_num_procs();  // a system call
    const int most = processors > 4 ? 4 * processors : 16;
    threads = threads < most ? threads : most;
    if (threads > omp_get_thread_limit()) threads = omp_get_thread_limit();
  }
  if (alone || threads <= 1) {
    FlushSubnormals mode;
    body(0, 1, context);
    return 1;
  }
#if defined(PBP_STD_THREADS)  // ThreadSanitizer does not see how OpenMP's threads wait for each other
  constexpr bool plain = true;
#else
  const bool plain = forked();
#endif
  if (plain) {
    struct Call {
      void (*body)(int, int, void*);
      void* context;
    } call{body, context};
    barrier.reset(threads);
    const bool done = run_crew(
        threads,
        [](int thread, int n, void* c) {
          FlushSubnormals mode;
          static_cast<Call*>(c)->body(thread, n, static_cast<Call*>(c)->context);
        },
        &call);
    return done ? threads : run_team(1, barrier, body, context);
  }
  const int dynamic = omp_get_dynamic();
  if (dynamic) omp_set_dynamic(0);
  barrier.reset(threads);
  int took_part = threads;
#pragma omp parallel num_threads(threads)
  {
    FlushSubnormals mode;
    if (omp_get_num_threads() == threads) {
      body(omp_get_thread_num(), threads, context);
    } else if (omp_get_thread_num() == 0) {  // the runtime granted fewer: barriers count on all or one
      took_part = 1;
      body(0, 1, context);
    }
  }
  if (dynamic) omp_set_dynamic(dynamic);
  return took_part;
}

int openmp_max_threads() { return omp_get_max_threads(); }
int openmp_processors() { return omp_get_num_procs(); }
int openmp_limit() { return omp_get_thread_limit(); }

std::vector<int> openmp_cpus(const std::vector<int>& cpus) {
  if (omp_get_proc_bind() == omp_proc_bind_false) return cpus;
  bool bound = false;
  std::vector<int> all;
  for (int i = 0; i < omp_get_num_places(); ++i) {
    std::vector<int> place(size_t(omp_get_place_num_procs(i)));
    omp_get_place_proc_ids(i, place.data());
    std::sort(place.begin(), place.end());
    bound = bound || place == cpus;
    all.insert(all.end(), place.begin(), place.end());
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return bound ? all : cpus;
}

const char* openmp_runtime() {
#if defined(__clang__)
  return "libomp";
#else
  return "libgomp";
#endif
}

}  // namespace pbp
