// Facts about this machine, without judging them: diagnosis.h does that.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"

namespace optserve::cli {

struct DiskFacts {
  std::string folder;
  std::string error;  // why nothing could be written; empty: it could
  int64_t free_bytes = 0;
  double sync_ms_median = 0;  // time to write 4 KiB and to wait until they are on the disk
  double sync_ms_worst = 0;
};

struct MachineFacts {
  std::string processor;
  int cores = 0;  // that this process may use
  bool has_avx2 = false;
  bool has_avx512 = false;
  int64_t memory_bytes = 0;
  int64_t memory_available_bytes = 0;
  int64_t memory_limit_bytes = 0;         // of the control group; 0: none
  int64_t shared_memory_free_bytes = -1;  // of /dev/shm; -1: there is none
  uint64_t open_files_max = 0;
  std::vector<std::string> gpus;  // their names
  std::string driver;             // version of NVIDIA's driver; empty: it is not loaded
  bool has_cublas = false;
  bool has_nccl = false;
  DiskFacts disk;
  std::vector<int> ports;         // that a stack uses by default
  std::vector<int> ports_in_use;  // those of them that are taken
  bool is_clock_synchronised = false;
  int64_t wall_ms = 0;                        // since 1970
  std::vector<std::string> missing_programs;  // that `optserve up` starts
};

// Writes a file of a few KiB to `folder`, which must exist, some tens of times, and removes it.
MachineFacts look_at_machine(const std::string& folder, const Clock& clock);

}  // namespace optserve::cli
