// Keeps jobs counted as open until they end, when nobody else follows them.
#pragma once

#include <memory>
#include <utility>

#include "client/client_types.h"
#include "gateway/access/key_use.h"

namespace optserve::gateway {

// No stream if the jobs are not counted. A job that cannot be followed counts as ended.
inline client::JobStream counting_stream(std::shared_ptr<OpenJobs> jobs) {
  if (!jobs->is_counted()) return {};
  client::JobStream stream;
  stream.on_finished = [jobs](const protocol::JobResult&) { jobs->end_one(); };
  stream.on_lost = [jobs](const JobId&, const Refusal&) { jobs->end_one(); };
  return stream;
}

}  // namespace optserve::gateway
