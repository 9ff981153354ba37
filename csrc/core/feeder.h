/* How data reaches a run without Python between steps: a C function with a context, handed over as a capsule named
   "pybackprop.feeder". Plain C, so that Cython and others can compile against it. */
#pragma once
#include <stdint.h>

#define PBP_FEEDER_CAPSULE "pybackprop.feeder"

typedef struct pbp_feeder {
  /* Write rows [first, first + rows) of the epoch's order into buffers[i], the i-th graph input: dense, row-major,
     float32 or float64 as the graph's dtype, int64 for integer inputs. 0 on success; otherwise the run stops before
     that step. Called without the GIL, from any thread, one call at a time. */
  int (*fill)(void* context, int64_t first, int64_t rows, void* const* buffers);
  void* context;
  int needs_gil; /* fill runs Python: it is called with the GIL held, and leaves an exception set on failure */
  /* The part-th of so many parts of the same work, for several threads at a time; null if fill cannot be shared. */
  int (*fill_part)(void* context, int64_t first, int64_t rows, void* const* buffers, int part, int parts);
} pbp_feeder;
