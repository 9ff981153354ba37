#include "registry.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "../isa/tables.h"
#include "error.h"

namespace pbp {

#define PBP_DECLARE_FILE_v2(file) extern const OpTable ops_##file##_v2;
#define PBP_DECLARE_FILE_v3(file) extern const OpTable ops_##file##_v3;
#define PBP_DECLARE_FILE_v4(file) extern const OpTable ops_##file##_v4;
#define PBP_DECLARE_FILE_neon(file) extern const OpTable ops_##file##_neon;
#define PBP_DECLARE(lv)                    \
  PBP_OP_FILES(PBP_DECLARE_FILE_##lv)      \
  extern const RuleTable rules_table_##lv; \
  extern const LimitLoops limit_loops_##lv;
PBP_LEVELS(PBP_DECLARE)

namespace {

struct Built {
  const char* name;
  bool (*runs_here)();
  Level level;
};

// Whether a level that the CPU has includes products of bfloat16: a feature of some CPUs with AVX-512.
#if defined(__aarch64__)
bool has_neon() { return true; }
bool bf16_neon() { return false; }
#else
bool bf16_v2() { return false; }
bool bf16_v3() { return false; }
bool bf16_v4() { return __builtin_cpu_supports("avx512bf16"); }
// __builtin_cpu_supports also asks whether the operating system saves the wide registers.
bool has_v2() {
  return __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt") &&
         __builtin_cpu_supports("cmpxchg16b");
}
bool has_v3() {
  return has_v2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("lzcnt") &&
         __builtin_cpu_supports("movbe");
}
bool has_v4() {
  return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

#define PBP_NAME_v2 "x86-64-v2"
#define PBP_NAME_v3 "x86-64-v3"
#define PBP_NAME_v4 "x86-64-v4"
#define PBP_NAME_neon "neon"

std::vector<Level> find_levels() {
#if !defined(__aarch64__)
  __builtin_cpu_init();
#endif
  std::vector<Level> found;
#define PBP_FILE_v2(file) &ops_##file##_v2,
#define PBP_FILE_v3(file) &ops_##file##_v3,
#define PBP_FILE_v4(file) &ops_##file##_v4,
#define PBP_FILE_neon(file) &ops_##file##_neon,
#define PBP_ADD(lv)  \
  if (has_##lv())    \
    found.push_back( \
        Level{PBP_NAME_##lv, {PBP_OP_FILES(PBP_FILE_##lv)}, &rules_table_##lv, &limit_loops_##lv, bf16_##lv()});
  PBP_LEVELS(PBP_ADD)
  return found;
}

std::string listed(const std::vector<std::string>& names) {
  std::string s;
  for (const std::string& n : names) s += (s.empty() ? "" : ", ") + n;
  return s;
}

}  // namespace

const OpEntry* Level::find_op(const std::string& name_) const {
  for (const OpTable* t : files)
    for (int i = 0; i < t->count; ++i)
      if (name_ == t->ops[i].name) return &t->ops[i];
  return nullptr;
}

const OpEntry& Level::op(const std::string& name_) const {
  if (const OpEntry* e = find_op(name_)) return *e;
  throw ValueError("there is no op called \"" + name_ + "\"; the ops are " + listed(op_names()));
}

const RuleEntry& Level::rule(const std::string& name_) const {
  for (int i = 0; i < rules->count; ++i)
    if (name_ == rules->rules[i].name) return rules->rules[i];
  throw ValueError("there is no update rule called \"" + name_ + "\"; the rules are " + listed(rule_names()));
}

std::vector<std::string> Level::op_names() const {
  std::vector<std::string> names;
  for (const OpTable* t : files)
    for (int i = 0; i < t->count; ++i)
      if (t->ops[i].name[0] != '_') names.push_back(t->ops[i].name);
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> Level::rule_names() const {
  std::vector<std::string> names;
  for (int i = 0; i < rules->count; ++i) names.push_back(rules->rules[i].name);
  return names;
}

const std::vector<Level>& available_levels() {
  static const std::vector<Level> levels = find_levels();
  return levels;
}

bool cpu_supported() { return !available_levels().empty(); }

const Level& level(const std::string& name) {
  const std::vector<Level>& all = available_levels();
  std::string wanted = name, origin = "isa";
  if (wanted.empty()) {
    const char* env = std::getenv("PYBACKPROP_ISA");
    if (!env || !*env) return all.back();
    wanted = env;
    origin = "PYBACKPROP_ISA";
  }
  std::vector<std::string> names;
  for (const Level& l : all) {
    if (wanted == l.name) return l;
    names.push_back(l.name);
  }
  throw ValueError(origin + " asks for \"" + wanted + "\", but this CPU and build offer " + listed(names));
}

}  // namespace pbp
