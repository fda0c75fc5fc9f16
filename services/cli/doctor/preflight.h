// What a worker, tokenizer or gateway needs before it can start, as a Pod's init container waits for it: checkpoints
// that are complete, and shared memory for a group of GPUs.
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"

namespace optserve::cli {

// "NAME=FOLDER" or "FOLDER". Empty when a group of `world` ranks can load what is in the folder; otherwise what is
// missing, and who makes it. A folder that can never work for this group is refused, so that nobody waits for it.
Result<std::string> missing_of_model(const std::string& name_and_folder, int world);

// Refuses a folder (/dev/shm) whose file system holds fewer than `mib_wanted` MiB.
Status check_shared_memory(const std::string& folder, int64_t mib_wanted);

}  // namespace optserve::cli
