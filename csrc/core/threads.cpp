#include "threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cpus.h"
#include "team.h"

namespace pbp {
namespace {

std::atomic<int> chosen{0};           // set_num_threads
thread_local std::vector<int> stack;  // num_threads blocks of this thread

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Asking the system takes longer than a small step, so a run uses what was true a moment ago: a tenth of a second, or
// more where it takes so long that this would be over a thousandth of the time.
CpuLimits recent_limits() {
  thread_local double until = 0;  // affinity is a thread's own
  thread_local CpuLimits limits;
  const double begun = now();
  if (begun >= until) {
    limits = cpu_limits();
    const double ended = now();
    until = ended + std::clamp(1000 * (ended - begun), 0.1, 1.0);
  }
  return limits;
}

// The first number of "4" or "4,2"; 0 if the variable holds no such thing, as OpenMP ignores it then.
int openmp_variable() {
  const char* v = std::getenv("OMP_NUM_THREADS");
  if (!v) return 0;
  char* end = nullptr;
  const long n = std::strtol(v, &end, 10);
  if (end == v || n < 1 || n > INT_MAX) return 0;
  end += std::strspn(end, " \t\n");
  return *end == '\0' || *end == ',' ? int(n) : 0;
}

// OpenMP's own number as it was when this library was loaded, unless somebody had set it by then.
const int openmp_at_start = openmp_variable() ? openmp_variable() : openmp_processors();

struct Choice {
  int n;
  const char* reason;
};

Choice choose(bool recent) {
  Choice c{0, ""};
  if (!stack.empty()) {
    c = {stack.back(), "num_threads block"};
  } else if (const int n = chosen.load(std::memory_order_relaxed)) {
    c = {n, "set_num_threads"};
  } else if (const int v = openmp_variable()) {
    c = {v, "OMP_NUM_THREADS"};
  } else {
    const CpuLimits l = recent ? recent_limits() : cpu_limits();
    c = l.cores < l.affinity ? Choice{l.cores, "physical cores"} : Choice{l.affinity, "CPU affinity"};
    if (l.quota && l.quota < c.n) c = {l.quota, "CPU quota"};
  }
  // Somebody (threadpoolctl) has set OpenMP's own number in this thread: it caps whatever was chosen.
  const int openmp = openmp_max_threads();
  if (openmp != openmp_at_start && openmp < c.n) c = {openmp, "OpenMP limit (threadpoolctl)"};
  if (openmp_limit() < c.n) c = {openmp_limit(), "OMP_THREAD_LIMIT"};
  return {std::max(1, c.n), c.reason};
}

}  // namespace

CpuLimits cpu_limits() {
  const std::vector<int> cpus = openmp_cpus(allowed_cpus());
  if (cpus.empty()) return {std::max(1, openmp_processors()), std::max(1, openmp_processors()), cpu_quota("")};
  return {int(cpus.size()), physical_cores("", cpus), cpu_quota("")};
}

ThreadChoice thread_choice() {
  const Choice c = choose(false);
  return {c.n, c.reason};
}
int thread_count() { return choose(true).n; }

void set_thread_count(int n) { chosen.store(n, std::memory_order_relaxed); }
void push_thread_count(int n) { stack.push_back(n); }
void pop_thread_count() {
  if (!stack.empty()) stack.pop_back();
}

}  // namespace pbp
