// What peers are told: why a request is refused, and how an open job stands.
#pragma once

#include "base/error.h"
#include "scheduler/jobs/job.h"
#include "transport/service.h"

namespace optserve::scheduler {

// `retry_after_ms`: with kBusy, when to ask again; 0: not known.
void refuse_to(const transport::Peer& to, uint64_t request, const Refusal& why, transport::Outbox& out,
               int64_t retry_after_ms = 0);

// The job never was, is forgotten, or belongs to others.
Refusal unknown_job(const JobId& job);

// How far the job is, but for its place in the queue (places.h).
protocol::JobResult describe(const Job& job);

}  // namespace optserve::scheduler
