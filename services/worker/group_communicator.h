// Makes the communicator of a rank from its options.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "comm/communicator.h"
#include "metrics/metrics.h"
#include "worker/options.h"

namespace optserve::worker {

// Ranks of one host use shared memory, and ranks of several hosts use TCP; a group of one needs neither. GPUs use NCCL
// and, on one host, peer memory for tensors, on the stream of `backend`, and the others beside them. Returns when all
// ranks are there. Collectives of CPUs are measured. `backend`, `registry` and `clock` outlive the result. Throws
// Error.
std::unique_ptr<comm::Communicator> make_group_communicator(const WorkerOptions& options, backend::Backend& backend,
                                                            metrics::Registry& registry, const Clock& clock);

}  // namespace optserve::worker
