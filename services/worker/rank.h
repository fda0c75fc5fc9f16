// One rank of a group: loads its part of the model, then leads (rank 0) or follows.
#pragma once

#include "worker/options.h"

namespace optserve::worker {

// Returns the process's exit status. Throws Error when the environment fails.
int run_rank(const WorkerOptions& options);

}  // namespace optserve::worker
