// Where the time of steps goes: how long each thread worked on each job, and how long it waited before it.
#pragma once
#include <vector>

#include "program.h"
#include "ticks.h"

namespace pbp {

// Slots of a step beyond its jobs.
enum StepSlot : int { kFeed, kAccumulate, kUpdate, kRest, kStepSlots };

class Timeline {
 public:
  Timeline(const Plan& plan, int64_t steps, int threads)
      : slots(int(plan.jobs.size()) + kStepSlots), steps(steps), threads(threads) {
    for (int t = 0; t < threads; ++t) cells_.emplace_back(size_t((steps + 1) * slots * 2));
  }

  // A row of pairs (work, wait) of one thread, in ticks. There is a row more than steps: a thread that has done the
  // last one waits once more.
  int64_t* row(int thread, int64_t step) { return cells_[size_t(thread)].data() + step * slots * 2; }
  double seconds(int thread, int64_t step, int slot, bool waiting) const {
    return double(cells_[size_t(thread)][size_t((step * slots + slot) * 2 + waiting)]) * tick;
  }

  const int slots;
  const int64_t steps;
  int threads;      // that took part
  double tick = 0;  // seconds

 private:
  std::vector<std::vector<int64_t>> cells_;
};

// What a run reports to as it goes; every report takes the time since the one before. `NoMarks` is the usual run: the
// compiler leaves nothing of it.
struct NoMarks {
  NoMarks(Timeline*, int) {}
  void busy(int) {}
  void idle(int) {}
  void next() {}
};

class Marks {
 public:
  Marks(Timeline* t, int thread) : row_(t->row(thread, 0)), width_(t->slots * 2), last_(ticks()) {}
  void busy(int slot) { row_[2 * slot] += passed(); }
  void idle(int slot) { row_[2 * slot + 1] += passed(); }
  void next() { row_ += width_; }  // step

 private:
  int64_t passed() {
    const int64_t now = ticks(), t = now - last_;
    last_ = now;
    return t;
  }
  int64_t* row_;
  const int width_;
  int64_t last_;
};

// ValueError if the plan has ops of the host: they end the parallel region, and their time is Python's.
void expect_no_host(const Plan& plan);

// Runs a bound program `timeline.steps` times in one parallel region.
void time_runs(Binding& b, Timeline& timeline);

}  // namespace pbp
