// Waiting for another thread without a system call.
#pragma once
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pbp {

inline void spin_pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  asm volatile("yield");
#endif
}

// About 50 us of spinning before the CPU is offered to others: longer than any imbalance worth waiting for, short
// enough that a busy neighbour does not stall the team for a whole time slice.
constexpr int kSpins = 2000;

}  // namespace pbp
