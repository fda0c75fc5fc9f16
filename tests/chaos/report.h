// What a run has found, as text for people and as JSON for programs.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "checks.h"

namespace optserve::chaos {

struct Report {
  uint64_t seed = 0;
  double load = 0;
  int64_t seconds = 0;  // for how long faults were injected
  std::string network;  // how the processes were connected
  std::vector<std::string> skipped;
  Totals jobs;
  std::map<std::string, int64_t> faults;
  std::map<std::string, Times> recovery;
  Times retried;           // silence_of_retried()
  int64_t silence_ms = 0;  // longest time in which no client received anything
  int64_t ready_ms = 0;    // from the last fault's end until every process was registered
  Usage before, after;     // of the scheduler
  std::vector<std::string> violations;
};

std::string report_text(const Report& report);
std::string report_json(const Report& report);

}  // namespace optserve::chaos
