// What a process that came of fork has to know: only the thread that forked exists in it, locks are as other threads
// left them, and the OpenMP runtime counts on threads that stayed behind.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>

namespace pbp {

// Forks on the way from the process that loaded this library to this one.
uint64_t fork_count();

// Whether this process came of fork and has started no program since; then OpenMP's state may be that of another
// process, whoever used it there.
bool forked();

// A mutex for work that takes long. A child would wait for ever for one that another thread held when the process
// forked: there it is free, and `torn` says that what it guards stopped in the middle.
class ForkMutex {
 public:
  ForkMutex() : state_(new State) {}
  ~ForkMutex();
  ForkMutex(const ForkMutex&) = delete;
  void lock();
  bool try_lock();
  void unlock();
  bool mine() const;  // this thread holds it
  // With the lock held:
  bool torn() const { return state_.load()->torn; }
  void mend() { state_.load()->torn = false; }

 private:
  struct State {
    std::mutex mutex;
    const uint64_t born = fork_count();
    std::atomic<std::thread::id> holder{};
    bool torn = false;
  };
  static bool left_behind(const State& s);
  State* current();

  std::atomic<State*> state_;
};

}  // namespace pbp
