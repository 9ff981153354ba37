// How many threads a run may use, and why. Asked anew at every run; nothing is remembered from import.
#pragma once
#include <string>

namespace pbp {

// What the system grants the calling thread.
struct CpuLimits {
  int affinity;  // CPUs it may run on
  int cores;     // physical cores among them
  int quota;     // CPUs' worth of time for its control group, rounded up; 0: no limit
};
CpuLimits cpu_limits();

struct ThreadChoice {
  int threads;
  std::string reason;  // "num_threads block", "set_num_threads", "OMP_NUM_THREADS", "CPU affinity", "CPU quota", …
};

ThreadChoice thread_choice();
int thread_count();            // thread_choice().threads as it was a moment ago, without the words
void set_thread_count(int n);  // 0: back to the default
void push_thread_count(int n);
void pop_thread_count();

}  // namespace pbp
