// Runs a benchmark straight on the engine: optserve-worker is started for it and tells its events.
#pragma once

#include <string>
#include <vector>

#include "cli/bench/bench_recorder.h"

namespace optserve::cli {

// Hands every event on until the worker has ended; the first SIGINT or SIGTERM asks it to. Throws Error with the end of
// the worker's log if it fails.
void run_on_engine(const std::vector<std::string>& worker_arguments, const OnBenchEvent& on_event);

}  // namespace optserve::cli
