// A benchmark's result as text for people.
#pragma once

#include <string>

#include "cli/bench/bench_result.h"

namespace optserve::cli {

// Four significant digits without an exponent: "0.0123", "12.35", "1235".
std::string figure(double value);

// A heading that says what was measured, then a line for each batch and the definitions, or the throughput figures.
std::string bench_table(const BenchResult& result);

}  // namespace optserve::cli
