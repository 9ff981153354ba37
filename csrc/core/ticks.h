// The cheapest clock there is: about 10 ns a reading, in units that `seconds_per_tick` finds.
#pragma once
#include <chrono>
#include <cstdint>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace pbp {

inline int64_t ticks() {
#if defined(__x86_64__)
  return int64_t(__rdtsc());
#elif defined(__aarch64__)
  uint64_t t;
  asm volatile("mrs %0, cntvct_el0" : "=r"(t));
  return int64_t(t);
#else
  return std::chrono::steady_clock::now().time_since_epoch().count();
#endif
}

// Both clocks from construction on.
class TickRate {
 public:
  TickRate() : begun_(std::chrono::steady_clock::now()), first_(ticks()) {}
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun_).count(); }
  double seconds_per_tick() const {
    const int64_t passed = ticks() - first_;
    return passed > 0 ? seconds() / double(passed) : 0;
  }

 private:
  std::chrono::steady_clock::time_point begun_;
  int64_t first_;
};

}  // namespace pbp
