// What four hops cost by themselves: worker -> hub -> tokenizer -> hub -> client, as tokens travel, with messages that
// hold a number and a hub that only passes them on. What the scheduler adds is the difference to queue_bench's latency.
#pragma once

#include <string>
#include <vector>

#include "bench/bench_loop.h"

namespace optserve::bench {

// An endpoint to bind that nothing else uses; `name` tells two of one process apart.
std::string any_endpoint(const std::string& transport, const std::string& name);
std::vector<Figure> measure_relay(const std::string& transport, int seconds);
// Adds the median and p99 of these to figures, in ms. Sorts them.
void add_quantiles(std::vector<Figure>& figures, const std::string& name, std::vector<int64_t>& nanoseconds);

}  // namespace optserve::bench
