// What is available, what is in use, and the structural version of models.
#include <atomic>

#include "../core/cpus.h"
#include "../core/fork.h"
#include "../core/memory.h"
#include "../core/registry.h"
#include "../core/team.h"
#include "../core/threads.h"
#include "arrays.h"

namespace pbp {
namespace {

std::atomic<int64_t> structure{0};

py::dict op_info(const std::string& name) {
  const OpEntry& e = level("").op(name);
  py::dict d;
  d["name"] = name;
  d["differentiable"] = !(e.flags & kNoGradient);
  d["alias"] = bool(e.flags & kAlias);
  d["elementwise"] = e.row[0].forward != nullptr;
  return d;
}

py::dict rule_info(const std::string& name) {
  const RuleEntry& r = level("").rule(name);
  py::list hyper, defaults, states;
  for (int i = 0; r.hyper[i]; ++i) {
    hyper.append(r.hyper[i]);
    defaults.append(r.defaults[i]);
  }
  for (int i = 0; r.states[i]; ++i) states.append(r.states[i]);
  py::dict d;
  d["hyper"] = hyper;
  d["defaults"] = defaults;
  d["states"] = states;
  d["sparse"] = r.sparse;
  return d;
}

py::dict limits(int affinity, int cores, int quota) {
  py::dict d;
  d["affinity"] = affinity;
  d["cores"] = cores;
  d["quota"] = quota ? py::object(py::int_(quota)) : py::none();
  return d;
}

py::dict cpu_limits_below(const std::string& root, const std::optional<std::vector<int>>& cpus) {
  const std::vector<int> mask = cpus ? *cpus : allowed_cpus();
  return limits(int(mask.size()), physical_cores(root, mask), cpu_quota(root));
}

py::dict thread_config() {
  const ThreadChoice c = thread_choice();
  const CpuLimits l = cpu_limits();
  py::dict d = limits(l.affinity, l.cores, l.quota);
  d["threads"] = c.threads;
  d["reason"] = c.reason;
  d["openmp"] = openmp_runtime();
  d["forked"] = forked();
  d["compiler"] = __VERSION__;
  return d;
}

void set_threads(std::optional<int> n) {
  if (n && *n < 1) throw ValueError("the number of threads must be at least 1, got " + std::to_string(*n));
  set_thread_count(n.value_or(0));
}

void push_threads(int n) {
  if (n < 1) throw ValueError("the number of threads must be at least 1, got " + std::to_string(n));
  push_thread_count(n);
}

}  // namespace

void bind_config(py::module_& m) {
  m.def(
      "isa_names",
      [] {
        std::vector<std::string> names;
        for (const Level& l : available_levels()) names.push_back(l.name);
        return names;
      },
      "Instruction-set levels this CPU can run, lowest first.");
  m.def(
      "isa_has_bf16", [](const std::optional<std::string>& name) { return level(name.value_or("")).bf16; },
      py::arg("name") = py::none(),
      "Whether a level (None: the one new graphs use) has half-width products on this CPU.");
  m.def("isa_active", [] { return std::string(level("").name); }, "The level new graphs use.");
  m.def("op_names", [] { return level("").op_names(); }, "Names of all ops, sorted.");
  m.def("op_info", &op_info, py::arg("name"), "Facts about one op.");
  m.def("rule_names", [] { return level("").rule_names(); }, "Names of the optimizers' update rules.");
  m.def("rule_info", &rule_info, py::arg("name"), "Hyper-parameters, defaults and states of one update rule.");
  m.def(
      "get_num_threads", [] { return thread_choice().threads; }, "Threads a large run would use now, on this thread.");
  m.def("set_num_threads", &set_threads, py::arg("n"), "Set the number of threads; None: back to the default.");
  m.def("push_num_threads", &push_threads, py::arg("n"), "Override the number of threads on this thread.");
  m.def("pop_num_threads", &pop_thread_count, "Undo the last push_num_threads.");
  m.def("thread_config", &thread_config,
        "Threads, why so many, what the system grants, OpenMP runtime, whether this is a forked child, compiler.");
  m.def("cpu_limits", &cpu_limits_below, py::arg("root") = "", py::arg("cpus") = py::none(),
        "What system files below a root grant: affinity (the number of cpus; None: those of this thread), cores among "
        "them, quota or None.");
  m.def("allocations", &allocation_count, "Blocks of memory the core has allocated since import.");
  m.def("bump_version", [] { return ++structure; }, "Advance the structural version of models.");
  m.def("version", [] { return structure.load(); }, "The structural version of models.");
}

}  // namespace pbp
