// One chaos run, from the start to the verdict.
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
  std::vector<std::string> faults;  // empty: all of fault_names()
  std::string report;               // file for the summary as JSON; the text is written beside it as .txt
  std::string folder;               // for everything that the run writes; empty: a temporary folder
  bool namespaces = true;           // where the machine allows it
  bool sabotage = false;            // delete the journal once; the run must then find that jobs were lost
};

// Returns 0 if every promise was kept or, with sabotage, if the loss was found; otherwise 1.
int run_chaos(const RunOptions& options);

}  // namespace optserve::chaos
