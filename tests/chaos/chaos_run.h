// One run from start to verdict.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace optserve::chaos {

struct RunOptions {
  uint64_t seed = 0;
  int64_t seconds = 60;
  double load = 15;  // jobs a second
  int clients = 3;
  int64_t every_ms = 1'500;         // mean time between two faults
  std::vector<std::string> faults;  // empty: the default ones
  std::string report;               // file for the summary as JSON; the text goes beside it as .txt
  std::string folder;               // of everything that a run writes; empty: a temporary one
  bool namespaces = true;           // where the machine allows it
  bool sabotage = false;            // delete the journal once: a run that must find lost jobs
};

// 0: every promise held (with sabotage: the loss was found); 1: not.
int run_chaos(const RunOptions& options);

}  // namespace optserve::chaos
