// What this process may use of the machine: its affinity, and the limits of its control groups (version 1, version 2,
// or both side by side), which a container sets.
#pragma once

#include <cstdint>
#include <string>

namespace optserve {

// The strictest limit of a process's groups and of those around them; 0: none.
struct CgroupLimits {
  double cores = 0;  // processor time per second
  int64_t memory_bytes = 0;
};
// `root`, for tests, is prepended to /proc and /sys/fs/cgroup. What cannot be read counts as no limit.
CgroupLimits read_cgroup_limits(const std::string& root = {});

// Threads that can run at once without being held back, at least 1. A quota of 2.5 cores gives 2: with a third thread,
// all of them would be stopped for a part of each period.
int usable_cores();

// Memory that this process and those in its container may use together: the limit of its control group, or what the
// machine has.
int64_t usable_memory_bytes();

}  // namespace optserve
