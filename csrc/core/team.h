// Threads working through the same jobs. The only file that knows OpenMP is team.cpp.
#pragma once
#include <atomic>
#include <cstdint>
#include <vector>

namespace pbp {

// Everybody waits for everybody: sense-reversing, spinning, yielding to other processes after a while.
class Barrier {
 public:
  void reset(int threads) {
    threads_ = threads;
    waiting_.store(threads, std::memory_order_relaxed);
    round_.store(0, std::memory_order_relaxed);
    dragged_.store(false, std::memory_order_relaxed);
  }
  void wait();
  bool dragged() const { return dragged_.load(std::memory_order_relaxed); }  // since reset, somebody stopped spinning

 private:
  int threads_ = 1;
  std::atomic<bool> dragged_{false};
  alignas(128) std::atomic<int> waiting_{1};
  alignas(128) std::atomic<uint32_t> round_{0};
};

// Runs body(thread, threads, context) on up to `threads` threads, the caller among them, in numerics mode (subnormals
// flushed; restored before return). `barrier` is set up for as many as take part, which is what it returns. A forked
// child has a team of plain threads: OpenMP's threads stayed behind, and it would wait for them.
int run_team(int threads, Barrier& barrier, void (*body)(int thread, int threads, void* context), void* context);

// Whether a team pays, learned from what it did. Results do not depend on the number of threads, so the choice is free:
// when threads had to wait for one that another process kept off its CPU, a few steps of the team are timed and a few
// on one thread, and the faster way is kept until the other is tried again.
class TeamChoice {
 public:
  int pick(int threads, double now);
  bool probing() const {
    return mode_ == Mode::try_team || mode_ == Mode::try_alone;
  }  // the next run should be one step
  bool doubts(double now) const { return now >= trusted_until_; }  // a team that drags should stop to be compared
  void record(int threads, bool dragged, double seconds_per_step, double now);

 private:
  enum class Mode { team, try_team, try_alone, alone };
  void start(Mode mode);
  void lose(double now);

  Mode mode_ = Mode::team;
  int runs_ = 0;               // of the trial
  double sum_ = 0, team_ = 0;  // seconds a step: of the trial so far; of the team's trial
  double alone_ = 0;           // of one thread, when it was last tried
  bool dragged_ = false;       // in the trial
  double alone_until_ = 0;     // then the team is tried again
  double trusted_until_ = 0;   // the team has won a comparison: none before then
  double pause_ = 0.05;        // seconds alone, doubled every time the team loses
};

// Cores that a run on several threads occupies while this lives: all it wants, but no more than other runs of this
// process leave of the allowed ones, and at least one; if forced, exactly what it wants. What wants one thread is not
// counted and touches nothing shared.
class CoresInUse {
 public:
  CoresInUse(int wanted, int allowed, bool forced);
  ~CoresInUse();
  CoresInUse(const CoresInUse&) = delete;
  const int threads;  // granted

 private:
  const bool counted_;
  const uint64_t born_;  // forks by then: a child counts anew
};

int openmp_max_threads();
int openmp_processors();
int openmp_limit();  // threads it will ever start

// `cpus`, those of the calling thread; but where the runtime itself has bound this thread to one of its places
// (OMP_PROC_BIND), the CPUs of all places.
std::vector<int> openmp_cpus(const std::vector<int>& cpus);

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
