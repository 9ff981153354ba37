// How many threads a run may use, and why. Asked anew at every run; nothing is remembered from import.
#pragma once
#include <string>

namespace pbp {

struct ThreadChoice {
  int threads;
  std::string reason;  // "num_threads block", "set_num_threads", "OMP_NUM_THREADS", "CPU affinity", "CPU quota", …
};

ThreadChoice thread_choice();
int thread_count();            // thread_choice().threads of the last tenth of a second, without the words
void set_thread_count(int n);  // 0: back to the default
void push_thread_count(int n);
void pop_thread_count();
int cpu_count();  // CPUs this process may run on, its quota applied

}  // namespace pbp
