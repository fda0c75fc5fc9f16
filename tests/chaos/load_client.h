// One client process: submits jobs at times fixed beforehand, follows them, and keeps its ledger. Started again after a
// kill, it reads the ledger, submits what was not answered under the same keys and follows what has not ended.
#pragma once

#include <cstdint>
#include <string>

namespace optserve::chaos {

struct LoadOptions {
  std::string endpoint, ledger;
  uint64_t seed = 1;
  int client = 0;
  double rate = 1;         // jobs a second
  int threads = 4;         // that submit
  int slow_ms = 0;         // what this client takes to look at the first piece of a job's text
  int open_max = 30;       // jobs that have not ended: what would arrive beyond is left out
  int drain_seconds = 90;  // after SIGTERM, without the end of any job
};

// Until SIGTERM and the end of every job. 0: all have ended; 3: some have not, and none has for drain_seconds.
int run_load_client(const LoadOptions& options);

}  // namespace optserve::chaos
