// What this CPU does at best right now, found by running loops of nothing else for a while: the yardstick for the time
// of a step. Rates are of the median piece of some microseconds, summed over the threads.
#pragma once
#include <string>
#include <vector>

#include "memory.h"
#include "registry.h"

namespace pbp {

// Floating-point operations a second of `threads` threads.
double fma_rate(const Level& level, DType dtype, int threads, double seconds);

// The same of bfloat16 dot products; 0 where the CPU has none.
double bf16_rate(const Level& level, int threads, double seconds);

// One register tile of the matrix product, on one thread, with k = 256 and operands in cache.
struct TileRate {
  int rows, natives;
  double rate;  // floating-point operations a second
};
std::vector<TileRate> tile_rates(const Level& level, double seconds_each);

// Memory to measure on: in cache or not according to its size.
class MemorySpan {
 public:
  explicit MemorySpan(int64_t bytes);
  int64_t bytes() const { return block_.bytes(); }
  // Bytes read and written a second when every thread goes through its own part in place, again and again.
  double rate(const Level& level, int threads, double seconds);

 private:
  Block block_;
};

}  // namespace pbp
