// Which of several schedulers gets a job.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace optserve::client {

inline constexpr size_t kSchedulersMax = 64;

// "tcp://a:5555,tcp://b:5555" in parts. Refuses an empty list, an empty part, one that is there twice, and too many.
Result<std::vector<std::string>> split_endpoints(std::string_view list);

// All schedulers in the order in which a job with this key prefers them (rendezvous hashing): the same for every client
// that names the schedulers alike, in whichever order it lists them. When one comes or goes, only the jobs that prefer
// it change their first choice. Indices into `endpoints`.
std::vector<size_t> scheduler_order(std::string_view tenant, std::string_view key,
                                    const std::vector<std::string>& endpoints);

}  // namespace optserve::client
