#include "scheduler/leases/leases.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "base/trace_context.h"

namespace optserve::scheduler {

void Leases::give(Job& job, ServiceEntry& worker, Instant now) {
  tables_.jobs.move(job, Stage::kLeased);
  job.lease().number = job.attempts().last_lease = next_lease_++;
  job.lease().worker = &worker;
  ++job.attempts().count;
  job.attempts().begin_try(worker.info.name, job.age_ms(now));
  if (is_sampled(job.spec().traceparent)) {
    log_info("job_leased", {{"job", job.id.hex()},
                            {"worker", worker.info.name},
                            {"attempt", job.attempts().count},
                            trace_field(job.spec().traceparent)});
  }
  // The attempt is on disk before the work can do harm.
  job.lease().sequence = tables_.store.append(
      journal::Leased{job.id, job.order, {tables_.term, job.lease().number}, job.attempts().count});
  if (worker.leases.empty()) worker.progressed = now;
  worker.leases.emplace(job.lease().number, &job);
  tables_.queues.on_leased(worker, job);
  tables_.running.began(job.spec().tenant);
  job.attempts().started = true;
  job.lease().began_at = now;
  tables_.jobs.update_deadline(job);
  tables_.metrics.leases.add();
  if (job.times.leased_at != Instant{}) return;
  job.times.leased_at = now;
  if (!job.is_generation()) return;
  SchedulerMetrics::OfModel& model = tables_.metrics.of_model(job.spec().model);
  model.queue_seconds.observe(std::chrono::duration<double>(now - job.times.ready_at).count());
  model.prompt_tokens.add(static_cast<double>(job.prompt().ids.size()));
  model.prompt_size.observe(static_cast<double>(job.prompt().ids.size()));
}

void Leases::release(Job& job) {
  if (job.lease().number == 0) return;
  job.lease().worker->leases.erase(job.lease().number);
  tables_.queues.on_released(*job.lease().worker, job);
  tables_.running.ended(job.spec().tenant);
  job.lease().worker = nullptr;
  job.lease().number = 0;
  tables_.jobs.update_deadline(job);
}

void Leases::revoke(Job& job) {
  if (job.lease().number == 0) return;
  Revocation& revocation = revocations_[{job.lease().worker->peer, tables_.term}];
  revocation.after = std::max(revocation.after, job.lease().sequence);
  revocation.leases.push_back(job.lease().number);
  release(job);
}

void Leases::give_back_all() {
  tables_.jobs.for_each([&](Job& job) {
    if (job.is_parked() || job.lease().number == 0) return;
    tables_.store.append(journal::Leased{job.id, job.order, {tables_.term, 0}, job.attempts().count - 1});
    if (job.output().ids.size() > job.output().saved) {
      tables_.store.append(journal::Progress{job.id, job.order, job.output().ids});
    }
  });
}

Job* Leases::held_job(ServiceEntry& from, uint64_t term, uint64_t lease) {
  if (term == tables_.term) {
    const auto found = from.leases.find(lease);
    if (found != from.leases.end()) return found->second;
  }
  tables_.metrics.stale_tokens.add();
  tell_to_stop(from.peer, term, lease);
  return nullptr;
}

void Leases::tell_to_stop(const transport::Peer& worker, uint64_t term, uint64_t lease) {
  revocations_[{worker, term}].leases.push_back(lease);
}

void Leases::send_revokes(transport::Outbox& out) {
  for (auto& [to, revocation] : std::exchange(revocations_, {})) {
    const auto& [after, leases] = revocation;
    for (size_t first = 0; first < leases.size(); first += limits::kMessageArrayMax) {
      const size_t last = std::min(leases.size(), first + limits::kMessageArrayMax);
      protocol::Revoke revoke{
          to.term, {leases.begin() + static_cast<ptrdiff_t>(first), leases.begin() + static_cast<ptrdiff_t>(last)}};
      out.send_after(after, to.worker, std::move(revoke));
    }
  }
}

}  // namespace optserve::scheduler
