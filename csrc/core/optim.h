// The contract between update rules (csrc/optim) and the rest. Compiled once per instruction set, like op.h: plain data
// only.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace pbp {

constexpr int kMaxOptimStates = 3;
constexpr int kMaxOptimNumbers = 16;

// One parameter group's numbers for one step, in double; `prepare` turns the user's hyper-parameters into these.
struct RuleNumbers {
  double v[kMaxOptimNumbers];
};

// `rows` runs of n elements, `step` apart, in every span alike.
struct Extent {
  int64_t rows, n, step;
};

// One update rule. States are spans laid out like the parameters, zero at the start (Rule::initial says otherwise).
struct RuleEntry {
  const char* name;           // "sgd", "adam", …
  const char* const* hyper;   // names of the hyper-parameters, in the order of `prepare`'s `h`, null-terminated
  const double* defaults;     // one per hyper-parameter
  const char* const* states;  // names of the state spans, in order, null-terminated (at most kMaxOptimStates)
  // Once per step and group: step counts from 1; lr already includes schedule and the group's multiple.
  void (*prepare)(const double* h, double lr, int64_t step, RuleNumbers& numbers);
  // w[i] -= …  over the extent. Index 0 float, 1 double. Result at i depends on i's operands alone. `scale` multiplies
  // every gradient first (clipping by norm, averaging of accumulated gradients), then it is clamped to [-clip, clip]
  // (inf: off).
  void (*sweep[2])(const RuleNumbers&, double scale, double clip, void* w, const void* g, void* const* state,
                   const Extent& extent);
  double initial_state[kMaxOptimStates];  // value each state span starts from
  bool sparse;  // may be applied to touched rows only (SGD, Adagrad; Adam with SparseAdam's semantics)
};

// Sum of squares of n elements in a fixed order, in double. For clipping by global norm; called on fixed chunks.
using SquareSumFn = double (*)(const void* g, int64_t n);

// Whether all of n elements are finite.
using FiniteFn = bool (*)(const void* g, int64_t n);

struct RuleTable {
  const RuleEntry* rules;
  int count;
  SquareSumFn square_sum[2];
  FiniteFn finite[2];
};

}  // namespace pbp
