// Chooses which of several schedulers gets a job.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace optserve::client {

inline constexpr size_t kSchedulersMax = 64;

// Splits "tcp://a:5555,tcp://b:5555" at its commas. Refuses an empty list, an empty part, duplicates and more than
// kSchedulersMax parts.
Result<std::vector<std::string>> split_endpoints(std::string_view list);

// All schedulers in the order in which a job with this key prefers them, as indices into `endpoints` (rendezvous
// hashing). The order is the same for all clients that use the same addresses, however they list them. When a scheduler
// is added or removed, only the jobs that prefer it change their first choice.
std::vector<size_t> scheduler_order(std::string_view tenant, std::string_view key,
                                    const std::vector<std::string>& endpoints);

}  // namespace optserve::client
