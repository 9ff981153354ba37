// Threads working through the same jobs. The only file that knows OpenMP is team.cpp.
#pragma once
#include <atomic>
#include <cstdint>

namespace pbp {

// Everybody waits for everybody: sense-reversing, spinning, yielding to other processes after a while.
class Barrier {
 public:
  void reset(int threads) {
    threads_ = threads;
    waiting_.store(threads, std::memory_order_relaxed);
    round_.store(0, std::memory_order_relaxed);
  }
  void wait();

 private:
  int threads_ = 1;
  alignas(128) std::atomic<int> waiting_{1};
  alignas(128) std::atomic<uint32_t> round_{0};
};

// Runs body(thread, threads, context) on up to `threads` threads, the caller among them, in numerics mode (subnormals
// flushed; restored before return). `barrier` is set up for as many as take part, which is what it returns. In a child forked
// from a process that used a team it runs on the caller alone, because the other threads do not exist there.
int run_team(int threads, Barrier& barrier, void (*body)(int thread, int threads, void* context), void* context);

int openmp_max_threads();
int openmp_processors();
const char* openmp_runtime();

// Subnormals are treated as zero while this lives.
class FlushSubnormals {
 public:
  FlushSubnormals();
  ~FlushSubnormals();

 private:
  uint64_t before_;
};

}  // namespace pbp
