#include "threads.h"

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "error.h"
#include "team.h"

namespace pbp {
namespace {

std::atomic<int> chosen{0};           // set_num_threads
thread_local std::vector<int> stack;  // num_threads blocks of this thread

int affinity_count() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, openmp_processors());
}

// CPUs' worth of time the cgroup grants, rounded up; 0: no limit. Version 2 first, then version 1.
int quota_count() {
  double quota = 0, period = 0;
  if (FILE* f = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    const int n = std::fscanf(f, "%lf %lf", &quota, &period);
    std::fclose(f);
    return n == 2 && quota > 0 && period > 0 ? int(std::ceil(quota / period)) : 0;
  }
  auto number = [](const char* path) {
    double v = 0;
    if (FILE* f = std::fopen(path, "r")) {
      if (std::fscanf(f, "%lf", &v) != 1) v = 0;
      std::fclose(f);
    }
    return v;
  };
  quota = number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  period = number("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  return quota > 0 && period > 0 ? int(std::ceil(quota / period)) : 0;
}

// What the system grants: asking takes longer than a small step, so a run uses what was true within the last tenth of a
// second.
struct Machine {
  int affinity, quota, processors;
};
Machine machine(bool recent) {
  static std::atomic<int64_t> read_at{-1};
  static std::atomic<int> affinity{1}, quota{0}, processors{1};
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  const int64_t tick = int64_t(t.tv_sec) * 10 + t.tv_nsec / 100000000;
  if (!recent || tick != read_at.load(std::memory_order_relaxed)) {
    affinity.store(affinity_count(), std::memory_order_relaxed);
    quota.store(quota_count(), std::memory_order_relaxed);
    processors.store(openmp_processors(), std::memory_order_relaxed);
    read_at.store(tick, std::memory_order_relaxed);
  }
  return {affinity.load(std::memory_order_relaxed), quota.load(std::memory_order_relaxed),
          processors.load(std::memory_order_relaxed)};
}

// The OpenMP variable, if it holds a number; 0 otherwise.
int openmp_variable() {
  const char* v = std::getenv("OMP_NUM_THREADS");
  return v ? std::max(0, std::atoi(v)) : 0;
}

struct Choice {
  int n;
  const char* reason;
};

Choice choose(bool recent) {
  const Machine m = machine(recent);
  const int variable = openmp_variable();
  const int openmp_default = variable ? variable : m.processors;
  const int openmp_now = openmp_max_threads();
  Choice c{0, ""};
  if (!stack.empty()) {
    c = {stack.back(), "num_threads block"};
  } else if (const int n = chosen.load(std::memory_order_relaxed)) {
    c = {n, "set_num_threads"};
  } else if (variable) {
    c = {variable, "OMP_NUM_THREADS"};
  } else {
    c = {m.affinity, "CPU affinity"};
    if (m.quota && m.quota < c.n) c = {m.quota, "CPU quota"};
  }
  // Somebody (threadpoolctl) lowered OpenMP's own number in this thread: it caps whatever was chosen.
  if (openmp_now < openmp_default && openmp_now < c.n) c = {openmp_now, "OpenMP limit (threadpoolctl)"};
  return {std::max(1, c.n), c.reason};
}

}  // namespace

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

int cpu_count() {
  const int quota = quota_count(), cpus = affinity_count();
  return quota ? std::min(quota, cpus) : cpus;
}

}  // namespace pbp
