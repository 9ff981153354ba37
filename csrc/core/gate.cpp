#include "gate.h"

#include <condition_variable>
#include <mutex>

#include "error.h"
#include "fork.h"

namespace pbp {
namespace {

// The word: readers inside, and two marks. Where neither mark is set, entering and leaving is one exchange.
constexpr uint32_t kWriting = 1u << 31, kWanted = 1u << 30, kReaders = kWanted - 1;

}  // namespace

struct Gate::State {
  std::atomic<uint32_t> word{0};
  const uint64_t born = fork_count();
  // For those who have to wait; all else under the mutex.
  std::mutex mutex;
  std::condition_variable changed;
  uint32_t readers_waiting = 0, writers_waiting = 0;
  uint64_t last = 0, next = 0;  // writers that wait
  uint64_t round = 0;           // advanced when waiting readers are let in
  bool between = false;         // the writer waits for readers it let in, and is next

  uint32_t wanted() const { return readers_waiting || writers_waiting || between ? kWanted : 0; }

  // Readers that wait are counted in before they wake, so nobody slips in before them.
  uint32_t admit() {
    const uint32_t n = readers_waiting;
    readers_waiting = 0;
    ++round;
    return n;
  }

  void read() {
    std::unique_lock<std::mutex> lock(mutex);
    const uint32_t before = word.fetch_or(kWanted);
    if (!(before & kWriting) && !writers_waiting && !between) {
      word.fetch_add(1);
      if (!wanted()) word.fetch_and(~kWanted);
      return;
    }
    ++readers_waiting;
    const uint64_t mine = round;
    changed.wait(lock, [&] { return round != mine; });
  }

  void write() {
    std::unique_lock<std::mutex> lock(mutex);
    word.fetch_or(kWanted);
    ++writers_waiting;
    const uint64_t mine = last++;  // in turn: who comes back at once would be the quickest every time
    changed.wait(lock, [&] { return next == mine && !between && !(word.load() & (kWriting | kReaders)); });
    ++next;
    --writers_waiting;
    word.store(kWriting | wanted());
  }

  void written() {
    std::lock_guard<std::mutex> lock(mutex);
    const uint32_t n = admit();
    word.store(n | wanted());
    changed.notify_all();
  }

  void let_others_in() {
    std::unique_lock<std::mutex> lock(mutex);
    if (!readers_waiting) return;
    between = true;
    word.store(admit() | kWanted);
    changed.notify_all();
    changed.wait(lock, [&] { return !(word.load() & kReaders); });
    between = false;
    word.store(kWriting | wanted());
  }

  void last_left() {
    std::lock_guard<std::mutex> lock(mutex);
    changed.notify_all();
  }
};

Gate::Gate() : state_(new State) {}

Gate::~Gate() {
  State* s = state_.load();
  if (s->born == fork_count()) delete s;
}

// In a forked child nobody is inside: the thread that forked does not leave what it entered, see Hold::release.
Gate::State* Gate::current() {
  State* s = state_.load(std::memory_order_acquire);
  if (s->born == fork_count()) return s;
  State* fresh = new State;
  if (state_.compare_exchange_strong(s, fresh)) return fresh;
  delete fresh;
  return s;
}

bool Gate::try_enter(bool write) noexcept {
  std::atomic<uint32_t>& word = current()->word;
  uint32_t seen = word.load(std::memory_order_relaxed);
  if (write) {
    seen = 0;
    return word.compare_exchange_strong(seen, kWriting, std::memory_order_acquire);
  }
  while (!(seen & (kWriting | kWanted)))
    if (word.compare_exchange_weak(seen, seen + 1, std::memory_order_acquire)) return true;
  return false;
}

void Gate::enter(bool write) {
  if (try_enter(write)) return;
  if (write)
    current()->write();
  else
    current()->read();
}

void Gate::leave(bool write) noexcept {
  State* s = current();
  uint32_t seen = kWriting;
  if (write) {
    if (!s->word.compare_exchange_strong(seen, 0, std::memory_order_release) && (seen & kWriting)) s->written();
    return;
  }
  seen = s->word.fetch_sub(1, std::memory_order_release);
  if ((seen & kWanted) && (seen & kReaders) == 1) s->last_left();
}

void Gate::let_others_in() {
  State* s = current();
  if (s->word.load(std::memory_order_relaxed) & kWanted) s->let_others_in();
}

// What a thread has entered, in order.
struct Hold::Thread {
  static constexpr int kMost = 64;  // calls within calls: the stack ends before
  Entry entries[kMost];
  int n = 0;
};
thread_local Hold::Thread Hold::thread_;

bool Hold::covered(const Gate* gate, bool write) {
  const Thread& t = thread_;
  for (int i = 0; i < t.n; ++i) {
    if (t.entries[i].gate != gate) continue;
    if (write && !t.entries[i].write)
      throw ValueError(
          "this model is in use by the call that this one was made from: it cannot be trained or changed within its "
          "own "
          "ops");
    return true;
  }
  return false;
}

void Hold::add(Gate* gate, bool write) {
  Thread& t = thread_;
  born_ = fork_count();
  if (n_ < kFew)
    few_[n_++] = {gate, write};
  else
    more_.push_back({gate, write});
  t.entries[t.n++] = {gate, write};
}

bool Hold::try_take(const std::vector<GateUse>& uses, bool writes) {
  for (const GateUse& u : uses) {
    const bool write = u.write && writes;
    if (covered(u.gate.get(), write)) continue;
    if (thread_.n == Thread::kMost || !u.gate->try_enter(write)) {
      release();
      return false;
    }
    add(u.gate.get(), write);
  }
  return true;
}

void Hold::take(const std::vector<GateUse>& uses, bool writes) {
  for (const GateUse& u : uses) {
    const bool write = u.write && writes;
    if (covered(u.gate.get(), write)) continue;
    if (thread_.n == Thread::kMost) throw ValueError("too many models are used within each other's ops");
    u.gate->enter(write);
    add(u.gate.get(), write);
  }
}

void Hold::leave(const Entry& entry) {
  Thread& t = thread_;
  int i = t.n - 1;
  while (i >= 0 && t.entries[i].gate != entry.gate) --i;
  if (i >= 0) {
    --t.n;
    for (; i < t.n; ++i) t.entries[i] = t.entries[i + 1];
  }
  if (born_ == fork_count()) entry.gate->leave(entry.write);  // a child's gates are new
}

void Hold::release() {
  for (; !more_.empty(); more_.pop_back()) leave(more_.back());
  while (n_ > 0) leave(few_[--n_]);
}

void Hold::let_others_in() {
  for (int i = 0; i < n_; ++i)
    if (few_[i].write) few_[i].gate->let_others_in();
  for (const Entry& e : more_)
    if (e.write) e.gate->let_others_in();
}

}  // namespace pbp
