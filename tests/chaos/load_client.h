// One client process: it submits jobs at moments that are fixed beforehand, follows them, and keeps a ledger. When it
// is started again after a kill, it reads the ledger, submits jobs without an answer again under the same keys, and
// follows those that have not ended.
#pragma once

#include <cstdint>
#include <string>

namespace optserve::chaos {

struct LoadOptions {
  std::string endpoint, ledger;
  uint64_t seed = 1;
  int client = 0;
  double rate = 1;         // jobs a second
  int threads = 4;         // threads that submit
  int slow_ms = 0;         // how long this client takes to look at the first piece of a job's text
  int open_max = 30;       // most jobs that have not ended; jobs that would exceed it are left out
  int drain_seconds = 90;  // gives up after SIGTERM when no job has ended for this long
};

// Runs until SIGTERM and the end of every job. Returns 0 if all jobs have ended, and 3 if some have not and none has
// ended for drain_seconds.
int run_load_client(const LoadOptions& options);

}  // namespace optserve::chaos
