// The communicator of a rank, as its options want it.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "comm/communicator.h"
#include "worker/options.h"

namespace optserve::worker {

// Nothing for one rank; shared memory on one host and TCP on several, alone for CPUs, below NCCL for GPUs, whose
// collectives are enqueued on the stream of `backend`, which outlives the result. Waits until all ranks are there.
// Throws Error.
std::unique_ptr<comm::Communicator> make_group_communicator(const WorkerOptions& options, backend::Backend& backend,
                                                            const Clock& clock);

}  // namespace optserve::worker
