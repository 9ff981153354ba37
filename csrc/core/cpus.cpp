#include "cpus.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <sstream>

namespace pbp {
namespace {

constexpr double kMostCpus = 1 << 20;

std::string read(const std::string& path) {
  std::string text;
  FILE* f = std::fopen(path.c_str(), "r");
  if (!f) return text;
  char piece[4096];
  for (size_t n; (n = std::fread(piece, 1, sizeof piece, f)) > 0;) text.append(piece, n);
  std::fclose(f);
  return text;
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, at);) parts.push_back(part);
  return parts;
}

bool holds(const std::vector<std::string>& list, const char* word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

// A positive integer and nothing else but white space; 0 otherwise.
double positive(const std::string& text) {
  char* end = nullptr;
  const long long v = std::strtoll(text.c_str(), &end, 10);
  if (end == text.c_str() || v <= 0) return 0;
  return text.find_first_not_of(" \t\n", size_t(end - text.c_str())) == std::string::npos ? double(v) : 0;
}

// "0-3,8" to 0, 1, 2, 3, 8; empty if it is anything else.
std::vector<int> cpu_list(const std::string& text) {
  std::vector<int> list;
  for (const std::string& part : split(text.substr(0, text.find('\n')), ',')) {
    int first = -1, last = -1, used = 0;
    const int n = std::sscanf(part.c_str(), "%d%n-%d%n", &first, &used, &last, &used);
    if (n == 1) last = first;
    if (n < 1 || size_t(used) != part.size() || first < 0 || last < first || last >= kMostCpus) return {};
    for (int cpu = first; cpu <= last; ++cpu) list.push_back(cpu);
  }
  return list;
}

// mountinfo writes a blank as \040.
std::string unescaped(const std::string& s) {
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '\\' && i + 3 < s.size()) {
      out += char(std::strtol(s.substr(i + 1, 3).c_str(), nullptr, 8));
      i += 3;
    } else {
      out += s[i];
    }
  }
  return out;
}

struct Mount {
  std::string root, at;  // which group of the hierarchy is seen, and where
};

// One hierarchy of control groups: version 2, or version 1's that governs CPU time.
struct Hierarchy {
  bool v2;
  std::string group = "/";  // the process's own
  std::vector<Mount> mounts;
  std::vector<const char*> usual;  // where it is mounted if nothing says
};

void find_groups(const std::string& root, Hierarchy& v1, Hierarchy& v2) {
  for (const std::string& line : split(read(root + "/proc/self/cgroup"), '\n')) {  // number:controllers:group
    const size_t a = line.find(':'), b = a == std::string::npos ? a : line.find(':', a + 1);
    if (b == std::string::npos || line.compare(b + 1, 1, "/") != 0) continue;
    const std::string controllers = line.substr(a + 1, b - a - 1);
    if (controllers.empty())
      v2.group = line.substr(b + 1);
    else if (holds(split(controllers, ','), "cpu"))
      v1.group = line.substr(b + 1);
  }
}

void find_mounts(const std::string& root, Hierarchy& v1, Hierarchy& v2) {
  for (const std::string& line : split(read(root + "/proc/self/mountinfo"), '\n')) {
    // id parent device root at options tags... - type source options
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    const std::vector<std::string> a = split(line.substr(0, dash), ' '), b = split(line.substr(dash + 3), ' ');
    if (a.size() < 5 || b.size() < 3) continue;
    const Mount m{unescaped(a[3]), unescaped(a[4])};
    if (b[0] == "cgroup2")
      v2.mounts.push_back(m);
    else if (b[0] == "cgroup" && holds(split(b[2], ','), "cpu"))
      v1.mounts.push_back(m);
  }
  for (Hierarchy* h : {&v1, &v2})
    if (h->mounts.empty())
      for (const char* at : h->usual) h->mounts.push_back({"/", at});
}

// Where `group` lies below a mount that shows `top` and what is in it: "" for the top itself, "/a/b" within. False if
// the mount does not show it.
bool below(const std::string& group, const std::string& top, std::string& path) {
  const std::string prefix = top == "/" ? "" : top;
  if (group.compare(0, prefix.size(), prefix) != 0) return false;
  path = group.substr(prefix.size());
  return (path.empty() || path[0] == '/') && !holds(split(path, '/'), "..");
}

// CPUs that one group grants; infinite without a limit.
double granted(const Hierarchy& h, const std::string& folder) {
  double quota, period;
  if (h.v2) {
    std::istringstream words(read(folder + "/cpu.max"));  // "max 100000" or "150000 100000"
    std::string a, b;
    words >> a >> b;
    quota = positive(a), period = positive(b);
  } else {
    quota = positive(read(folder + "/cpu.cfs_quota_us")), period = positive(read(folder + "/cpu.cfs_period_us"));
  }
  return quota > 0 && period > 0 ? quota / period : INFINITY;
}

double tightest(const std::string& root, const Hierarchy& h) {
  double least = INFINITY;
  bool shown = false;
  for (const Mount& m : h.mounts) {
    std::string path;
    if (!below(h.group, m.root, path)) continue;
    shown = true;
    for (;;) {
      least = std::min(least, granted(h, root + m.at + path));
      if (path.empty()) break;
      path.erase(path.rfind('/'));
    }
  }
  // A container may be shown its own group only, at the mount itself, while it is told the group's name outside.
  if (!shown)
    for (const Mount& m : h.mounts) least = std::min(least, granted(h, root + m.at));
  return least;
}

}  // namespace

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
#if defined(__linux__)
  for (int most = 1024; most <= int(kMostCpus); most *= 2) {  // the call fails if the system knows more CPUs
    cpu_set_t* set = CPU_ALLOC(most);
    const size_t bytes = CPU_ALLOC_SIZE(most);
    const bool ok = set && sched_getaffinity(0, bytes, set) == 0;
    for (int cpu = 0; ok && cpu < most; ++cpu)
      if (CPU_ISSET_S(cpu, bytes, set)) cpus.push_back(cpu);
    CPU_FREE(set);
    if (ok) break;
  }
#endif
  return cpus;
}

int physical_cores(const std::string& root, const std::vector<int>& cpus) {
  std::set<int> cores;  // a core is known by its lowest CPU
  for (int cpu : cpus) {
    const std::string folder = root + "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    std::vector<int> siblings = cpu_list(read(folder + "core_cpus_list"));
    if (siblings.empty()) siblings = cpu_list(read(folder + "thread_siblings_list"));  // before Linux 5.3
    const bool known = std::find(siblings.begin(), siblings.end(), cpu) != siblings.end();
    cores.insert(known ? *std::min_element(siblings.begin(), siblings.end()) : cpu);
  }
  return int(cores.size());
}

int cpu_quota(const std::string& root) {
  Hierarchy v1{false, "/", {}, {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"}};
  Hierarchy v2{true, "/", {}, {"/sys/fs/cgroup"}};
  find_groups(root, v1, v2);
  find_mounts(root, v1, v2);
  const double cpus = std::min(tightest(root, v1), tightest(root, v2));
  return cpus < kMostCpus ? int(std::ceil(cpus)) : 0;
}

}  // namespace pbp
