#include "timeline.h"

#include "error.h"

namespace pbp {

void expect_no_host(const Plan& plan) {
  for (const Item& item : plan.items)
    if (item.host) throw ValueError("profile cannot time ops written in Python, and " + item.label + " is one");
}

void time_runs(Binding& b, Timeline& timeline) {
  expect_no_host(b.plan());
  struct Call {
    Binding& b;
    Timeline& timeline;

    static void body(int thread, int threads, void* context) {
      Call& c = *static_cast<Call*>(context);
      const int jobs = int(c.b.plan().jobs.size());
      Marks marks(&c.timeline, thread);
      for (int64_t i = 0; i < c.timeline.steps; ++i, marks.next()) {
        if (thread == 0) {
          c.b.begin();
          marks.busy(jobs + kFeed);
        }
        if (threads > 1) c.b.barrier.wait();
        marks.idle(jobs + kFeed);
        c.b.run_jobs(0, jobs, thread, threads, c.b.barrier, marks);
        if (threads > 1) c.b.barrier.wait();
        marks.idle(jobs + kRest);
      }
    }
  } call{b, timeline};
  const TickRate clock;
  timeline.threads = run_team(timeline.threads, b.barrier, Call::body, &call);
  timeline.tick = clock.seconds_per_tick();
}

}  // namespace pbp
