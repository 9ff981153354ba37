// Instruction sets and what each of them can do. The only place that asks the CPU, and the only reader of
// PYBACKPROP_ISA.
#pragma once
#include <string>
#include <vector>

#include "limit_loops.h"
#include "op.h"
#include "optim.h"

namespace pbp {

struct Level {
  const char* name;  // "x86-64-v3"
  std::vector<const OpTable*> files;
  const RuleTable* rules;
  const LimitLoops* loops;
  bool bf16;  // the CPU and this level's kernels have products of bfloat16 pairs

  const OpEntry* find_op(const std::string& name) const;  // null if there is none
  const OpEntry& op(const std::string& name) const;       // ValueError naming the nearest
  const RuleEntry& rule(const std::string& name) const;
  std::vector<std::string> op_names() const;  // sorted; the plan's own ("_copy") left out
  std::vector<std::string> rule_names() const;
};

// Levels this CPU can run, lowest first.
const std::vector<Level>& available_levels();
// The named one; empty: PYBACKPROP_ISA if set, else the highest.
const Level& level(const std::string& name);
bool cpu_supported();  // false below the lowest level

}  // namespace pbp
