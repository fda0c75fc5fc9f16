// The journal by itself: what a commit of so many records costs, and a start that finds a full queue.
#pragma once

#include <string>
#include <vector>

#include "bench/bench_loop.h"

namespace optserve::bench {

// Durable accepts a second with at most `batch` records a commit.
Figure measure_commits(const std::string& folder, size_t batch, int seconds);
// Time and memory of a start with so many open jobs, each with a prompt of 512 bytes.
std::vector<Figure> measure_recovery(const std::string& folder, size_t jobs);

}  // namespace optserve::bench
