#include "fork.h"

#include <pthread.h>

#include <cstdio>
#include <sstream>
#include <string>

namespace pbp {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;

std::atomic<uint64_t> forks{0};
std::atomic<std::thread::id> survivor{};  // the thread that forked last

void mark_child() {
  survivor.store(std::this_thread::get_id());
  forks.fetch_add(1);
}

[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, mark_child);

// The system's mark of a process that was forked and has started no program since: such a one may have loaded this
// library after the fork.
bool born_by_fork() {
  char line[1024];
  size_t n = 0;
  if (FILE* f = std::fopen("/proc/self/stat", "r")) {
    n = std::fread(line, 1, sizeof line, f);
    std::fclose(f);
  }
  // pid (name) state parent group session terminal foreground flags ...; the name may hold anything
  const std::string text(line, n);
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return false;
  std::istringstream in(text.substr(name_end + 1));
  std::string state;
  long long ids[5];
  unsigned long flags = 0;
  in >> state;
  for (long long& id : ids) in >> id;
  in >> flags;
  constexpr unsigned long kForkNoExec = 0x40;  // PF_FORKNOEXEC
  return in && (flags & kForkNoExec) != 0;
}

}  // namespace

uint64_t fork_count() { return forks.load(relaxed); }

bool forked() {
  if (forks.load(relaxed)) return true;
  static const bool born = born_by_fork();
  return born;
}

// A mutex from before a fork is not touched again, because it may be locked or being locked; unless the thread that
// forked holds it. Identities of threads that stayed behind may be given to new ones, but never that one's.
bool ForkMutex::left_behind(const State& s) {
  return s.born != fork_count() && s.holder.load(relaxed) != survivor.load(relaxed);
}

ForkMutex::~ForkMutex() {
  State* s = state_.load();
  if (!left_behind(*s)) delete s;
}

ForkMutex::State* ForkMutex::current() {
  State* s = state_.load(std::memory_order_acquire);
  if (!left_behind(*s)) return s;
  State* fresh = new State;
  fresh->torn = s->torn || s->holder.load(relaxed) != std::thread::id();
  if (state_.compare_exchange_strong(s, fresh)) return fresh;
  delete fresh;  // another thread of the child was quicker
  return s;
}

void ForkMutex::lock() {
  State* s = current();
  s->mutex.lock();
  s->holder.store(std::this_thread::get_id(), relaxed);
}

bool ForkMutex::try_lock() {
  State* s = current();
  if (!s->mutex.try_lock()) return false;
  s->holder.store(std::this_thread::get_id(), relaxed);
  return true;
}

void ForkMutex::unlock() {
  State* s = state_.load(relaxed);
  s->holder.store(std::thread::id(), relaxed);
  s->mutex.unlock();
}

bool ForkMutex::mine() const {
  const State* s = state_.load(std::memory_order_acquire);
  return !left_behind(*s) && s->holder.load(relaxed) == std::this_thread::get_id();
}

}  // namespace pbp
