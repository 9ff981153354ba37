// The contract between the loops that find a CPU's limits (csrc/measure) and the rest. Compiled once per instruction
// set, like op.h: plain data only.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace pbp {

struct LimitLoops {
  // Independent multiply-adds in the widest registers, `rounds` times. Returns the floating-point operations done.
  // Index 0 float, 1 double.
  double (*fma[2])(int64_t rounds);
  // The same with products of pairs of bfloat16 summed in float; null where the level has none. Only for CPUs with
  // avx512_bf16.
  double (*bf16)(int64_t rounds);
  // Reads and writes n floats in place; n is a multiple of 64.
  void (*in_place)(float* x, int64_t n);
  // The matrix product's register tiles: rows (1 to tile_rows[natives - 1]) by `natives` (1 to tile_widths) vectors of
  // `lanes` floats. `tile` computes c (rows, natives * lanes) = a (rows, k) b (k, natives * lanes) `repeats` times.
  int lanes, tile_widths;
  const int* tile_rows;
  void (*tile)(int rows, int natives, int64_t k, int64_t repeats, const float* a, const float* b, float* c);
};

}  // namespace pbp
