#include "crew.h"

#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "fork.h"
#include "spin.h"

namespace pbp {
namespace {

using Body = void (*)(int, int, void*);

class Crew {
 public:
  ~Crew() {
    call([this] { quit_ = true; });
    for (std::thread& t : members_) t.join();
  }

  bool run(int threads, Body body, void* context) {
    try {
      while (int(members_.size()) < threads - 1) {
        const int number = int(members_.size()) + 1;
        members_.emplace_back([this, number, seen = calls_.load()] { work(number, seen); });
      }
    } catch (const std::system_error&) {
      return false;
    }
    call([&] {
      threads_ = threads;
      body_ = body;
      context_ = context;
      busy_.store(int(members_.size()));
    });
    body(0, threads, context);
    for (int spin = 0; busy_.load(std::memory_order_acquire) > 0; ++spin) {
      if (spin < kSpins)
        spin_pause();
      else
        sched_yield();
    }
    return true;
  }

 private:
  template <class F>
  void call(F set) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      set();
      calls_.fetch_add(1, std::memory_order_release);
    }
    called_.notify_all();
  }

  // Every member answers every call, whether or not it takes part, so that none can be late for the next one.
  void work(int number, uint32_t seen) {
    for (;; ++seen) {
      for (int spin = 0; spin < kSpins && calls_.load(std::memory_order_acquire) == seen; ++spin) spin_pause();
      if (calls_.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        called_.wait(lock, [&] { return calls_.load(std::memory_order_acquire) != seen; });
      }
      if (quit_) return;
      if (number < threads_) body_(number, threads_, context_);
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::mutex mutex_;
  std::condition_variable called_;
  std::atomic<uint32_t> calls_{0};
  std::atomic<int> busy_{0};
  bool quit_ = false;
  int threads_ = 0;
  Body body_ = nullptr;
  void* context_ = nullptr;
  std::vector<std::thread> members_;
};

// The calling thread's crew. One from before a fork has no threads any more and is left where it is, because its
// condition variable would wait for them.
struct Own {
  Crew* crew = nullptr;
  uint64_t forks = 0;
  ~Own() {
    if (crew && forks == fork_count()) delete crew;
  }
  Crew& get() {
    if (!crew || forks != fork_count()) {
      crew = new Crew;
      forks = fork_count();
    }
    return *crew;
  }
};

}  // namespace

bool run_crew(int threads, Body body, void* context) {
  thread_local Own own;
  return own.get().run(threads, body, context);
}

}  // namespace pbp
