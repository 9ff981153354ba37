// Who may touch a model's parameters now: any number of runs that read them, or one that changes them. A training holds
// its gate from step to step and lets those in who wait between two of them, so a reader sees the parameters of a
// finished step and waits for one step at most.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace pbp {

class Gate {
 public:
  Gate();
  ~Gate();
  Gate(const Gate&) = delete;

  bool try_enter(bool write) noexcept;  // at once, or not at all
  void enter(bool write);               // waits: never to be called with the GIL
  void leave(bool write) noexcept;
  void let_others_in();  // the writer, between two steps: everybody who waits to read has been in and left afterwards

  struct State;

 private:
  State* current();
  std::atomic<State*> state_;
};

// What a run needs of the gates of its parameters, in the order of their addresses, each once.
struct GateUse {
  std::shared_ptr<Gate> gate;
  bool write;
};

// Gates that this thread holds while this lives. What the thread holds already is not entered again, so a run may begin
// within another one; a thread that reads cannot begin to write: ValueError.
class Hold {
 public:
  Hold() = default;
  ~Hold() { release(); }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

  // All of them, read only unless `writes`; the gates must live as long as they are held. False: it would have to wait,
  // and holds none.
  bool try_take(const std::vector<GateUse>& uses, bool writes);
  void take(const std::vector<GateUse>& uses, bool writes);  // waits
  void release();
  void let_others_in();

 private:
  struct Entry {
    Gate* gate;
    bool write;
  };
  struct Thread;
  static thread_local Thread thread_;

  static bool covered(const Gate* gate, bool write);
  void add(Gate* gate, bool write);
  void leave(const Entry& entry);

  // Nearly always one: a step of a microsecond should not allocate.
  static constexpr int kFew = 2;
  Entry few_[kFew];
  int n_ = 0;
  std::vector<Entry> more_;
  uint64_t born_ = 0;  // forks by then
};

}  // namespace pbp
