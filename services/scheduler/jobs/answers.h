// Answers to peers: why a request is refused, and what the state of an open job is.
#pragma once

#include "base/error.h"
#include "scheduler/jobs/job.h"
#include "transport/service.h"

namespace optserve::scheduler {

// `retry_after_ms`: with kBusy, when to ask again; 0: not known.
void refuse_to(const transport::Peer& to, uint64_t request, const Refusal& why, transport::Outbox& out,
               int64_t retry_after_ms = 0);

// The job never existed, is forgotten, or belongs to another tenant.
Refusal unknown_job(const JobId& job);

// The progress of the job, without its place in the queue (places.h).
protocol::JobResult describe(const Job& job);

}  // namespace optserve::scheduler
