// What this process may use of the machine: its affinity, and the limits of its control groups (version 1, version 2,
// and both beside each other), which a container sets.
#pragma once

#include <cstdint>
#include <string>

namespace optserve {

// The strictest limit of a process's groups and of those around them; 0: none.
struct CgroupLimits {
  double cores = 0;  // processor time a second
  int64_t memory_bytes = 0;
};
// `root` is put before /proc and /sys/fs/cgroup, for tests. What cannot be read is no limit.
CgroupLimits read_cgroup_limits(const std::string& root = {});

// Threads that can run at once without being held back, at least 1. A quota of 2.5 cores gives 2: a third thread would
// stop all of them for a part of each period.
int usable_cores();

// Memory that this process and those in its container may use together: the limit of its control group, or what the
// machine has.
int64_t usable_memory_bytes();

}  // namespace optserve
