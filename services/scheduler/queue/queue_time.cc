// Time: delays and limits of jobs, and services that are silent or stuck.
#include <algorithm>
#include <utility>

#include "scheduler/scheduler_service.h"

namespace optserve::scheduler {

void SchedulerService::delay(Job& job, Instant until) {
  jobs_.set_stage(job, Stage::kDelayed);
  job.delayed_until = until;
  delayed_.emplace(std::pair(until, job.order), &job);
}

void SchedulerService::end_delays(Instant now) {
  while (!delayed_.empty() && delayed_.begin()->first.first <= now) {
    Job& job = *delayed_.begin()->second;
    delayed_.erase(delayed_.begin());
    if (job.ready_at == Instant{}) {
      begin(job, now);
    } else {
      enqueue(job, now);
    }
  }
}

// The job ends: it waits for nothing any more.
void SchedulerService::leave_queues(Job& job) {
  job.queue->jobs.leave(job);
  if (job.stage == Stage::kDelayed) delayed_.erase({job.delayed_until, job.order});
  bounds_.remove(job);
}

void SchedulerService::expire_jobs(Instant now) {
  while (Job* job = jobs_.expired(now)) {
    std::string message = limit_message(*job, next_limit(*job).kind);
    finish(*job,
           {protocol::JobState::kExpired, protocol::FinishReason::kError, ErrorCode::kDeadlineExceeded,
            std::move(message)},
           now);
  }
}

void SchedulerService::note_step(ServiceEntry& worker, Instant now) {
  if (!worker.leases.empty()) worker.pace.step(now - worker.progressed, now);
  worker.progressed = now;
}

// Each service is looked at when its time could be over, not at every tick.
void SchedulerService::check_services(Instant now) {
  while (ServiceEntry* entry = services_.due(now)) {
    const Instant silent_at = entry->heard + options_.service_lost_after;
    if (silent_at <= now) {
      lose_service(*entry, "it was silent for too long", now);
      continue;
    }
    Instant next = std::min(silent_at, now + options_.service_stalled_after.min);
    if (entry->info.kind == protocol::ServiceKind::kWorker && !entry->leases.empty()) {
      const Instant stalled_at = entry->progressed + entry->pace.limit(options_.service_stalled_after);
      if (stalled_at <= now) {
        lose_service(*entry, "it holds jobs but makes no progress", now);
        continue;
      }
      next = std::min(next, stalled_at);
    }
    services_.check_at(*entry, next);
  }
}

}  // namespace optserve::scheduler
