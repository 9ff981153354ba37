// How many CPUs' worth of work the system grants this process: affinity, physical cores, and the quota of its control
// group (container). Reads files and changes nothing; `root` is put before every path.
#pragma once
#include <string>
#include <vector>

namespace pbp {

// CPUs that the calling thread may run on, ascending. Empty where the system does not tell.
std::vector<int> allowed_cpus();

// Physical cores among these CPUs: threads of one core count once. A CPU whose siblings cannot be read is a core.
int physical_cores(const std::string& root, const std::vector<int>& cpus);

// The tightest CPU quota of the process's control groups (versions 1 and 2) and of all groups around them, in CPUs
// rounded up; 0: none.
int cpu_quota(const std::string& root);

}  // namespace pbp
