// A communicator whose operations are counted and timed: for groups of CPUs, where an operation is done when it
// returns.
#pragma once

#include <memory>

#include "base/clock.h"
#include "comm/communicator.h"
#include "metrics/metrics.h"

namespace optserve::worker {

// The time of all_reduce_sum, all_gather and broadcast. An idle group waits in the others. `clock` outlives the result.
std::unique_ptr<comm::Communicator> measure(std::unique_ptr<comm::Communicator> measured, metrics::Registry& registry,
                                            const Clock& clock);

}  // namespace optserve::worker
