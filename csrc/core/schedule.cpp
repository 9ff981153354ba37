#include "schedule.h"

#include <algorithm>

namespace pbp {
namespace {

struct Memory {
  Plan& plan;

  void touch(int b, int item) {
    if (b < 0) return;
    Buffer& x = plan.buffers[size_t(b)];
    if (x.first < 0) x.first = item;
    x.last = std::max(x.last, item);
  }

  template <class F>
  void each_buffer(const Item& item, F f) const {
    for (const auto* list : {&item.in, &item.out, &item.saved, &item.d_in, &item.d_out})
      for (const Operand& o : *list) f(o.buffer);
    for (int s : item.sparse)
      if (s >= 0) {
        f(plan.sparse[size_t(s)].rows);
        f(plan.sparse[size_t(s)].values);
      }
    f(item.scratch);
  }

  // Largest first, each at the lowest offset free for the whole of its life.
  void place() {
    const int last = int(plan.items.size());
    for (int i = 0; i < last; ++i) each_buffer(plan.items[size_t(i)], [&](int b) { touch(b, i); });
    std::vector<int> order;
    for (size_t b = 0; b < plan.buffers.size(); ++b) {
      Buffer& x = plan.buffers[b];
      if (x.space != Space::arena) continue;
      if (x.persistent || plan.guarded) {
        x.first = -1;  // inputs are written before the first item, results read after the last
        x.last = last;
      } else if (x.first < 0) {
        continue;
      }
      order.push_back(int(b));
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return plan.buffers[size_t(a)].bytes > plan.buffers[size_t(b)].bytes; });
    std::vector<int> placed;
    for (int b : order) {
      Buffer& x = plan.buffers[size_t(b)];
      std::vector<std::pair<int64_t, int64_t>> taken;
      for (int o : placed) {
        const Buffer& y = plan.buffers[size_t(o)];
        if (y.first <= x.last && x.first <= y.last) taken.push_back({y.offset, y.offset + y.bytes});
      }
      std::sort(taken.begin(), taken.end());
      int64_t at = 0;
      for (const auto& [from, to] : taken) {
        if (from - at >= x.bytes) break;
        at = std::max(at, to);
      }
      x.offset = at;
      plan.arena_bytes = std::max(plan.arena_bytes, at + x.bytes);
      placed.push_back(b);
    }
  }
};

struct Schedule {
  Plan& plan;

  struct Access {
    int buffer;
    bool write;
    int64_t rows;  // > 0: each thread touches its own rows of so many; 0: anything; -1: thread 0 alone
  };

  bool overlap(int a, int b) const {
    if (a == b) return true;
    const Buffer &x = plan.buffers[size_t(a)], &y = plan.buffers[size_t(b)];
    if (x.space != y.space) return false;
    if (x.space != Space::arena) return x.index == y.index;
    return x.offset < y.offset + y.bytes && y.offset < x.offset + x.bytes;
  }

  bool conflict(const Access& a, const Access& b) const {
    if (!a.write && !b.write) return false;
    if (a.rows == -1 && b.rows == -1) return false;
    if (!overlap(a.buffer, b.buffer)) return false;
    return !(a.rows > 0 && a.rows == b.rows && a.buffer == b.buffer);
  }

  std::vector<Access> accesses(const Item& item, const Phase& phase) const {
    std::vector<Access> list;
    const bool alone = phase.tasks <= 1;
    const int64_t own = alone ? -1 : phase.rows ? phase.tasks : 0;
    const int64_t other = alone ? -1 : 0;
    for (size_t k = 0; k < item.in.size(); ++k)
      if (item.in[k].buffer >= 0)
        list.push_back({item.in[k].buffer, false, phase.rows && (phase.local >> k & 1) ? own : other});
    const bool forward = item.pass == kForward;
    for (const Operand& o : item.out)
      if (o.buffer >= 0) list.push_back({o.buffer, forward, own});
    for (const Operand& o : item.saved) list.push_back({o.buffer, true, own});
    for (const Operand& o : item.d_out)
      if (o.buffer >= 0) list.push_back({o.buffer, false, own});
    for (const Operand& o : item.d_in)
      if (o.buffer >= 0) list.push_back({o.buffer, true, own});
    for (int s : item.sparse)
      if (s >= 0) {
        list.push_back({plan.sparse[size_t(s)].rows, true, other});
        list.push_back({plan.sparse[size_t(s)].values, true, other});
      }
    if (item.scratch >= 0) list.push_back({item.scratch, true, other});
    return list;
  }

  void schedule() {
    std::vector<Access> since;
    int first = 0;
    for (size_t i = 0; i < plan.items.size(); ++i) {
      const Item& item = plan.items[i];
      if (item.host) {
        plan.segments.push_back({first, int(plan.jobs.size()), int(i)});
        first = int(plan.jobs.size());
        since.clear();
        plan.has_host = true;
        continue;
      }
      for (size_t p = 0; p < item.phases.size(); ++p) {
        const std::vector<Access> now = accesses(item, item.phases[p]);
        bool barrier = p > 0 && !(item.phases[p].tasks <= 1 && item.phases[p - 1].tasks <= 1);
        for (const Access& a : now)
          for (const Access& b : since) barrier = barrier || conflict(a, b);
        if (int(plan.jobs.size()) == first) barrier = false;
        if (barrier) {
          since.clear();
          ++plan.barriers;
        }
        since.insert(since.end(), now.begin(), now.end());
        plan.jobs.push_back({item.fn, int(i), int(p), item.phases[p].number, item.phases[p].tasks, barrier});
        plan.cost += item.phases[p].cost * double(item.phases[p].tasks);
      }
    }
    plan.segments.push_back({first, int(plan.jobs.size()), -1});
  }
};

}  // namespace

void place_buffers(Plan& plan) { Memory{plan}.place(); }
void schedule_jobs(Plan& plan) { Schedule{plan}.schedule(); }

}  // namespace pbp
