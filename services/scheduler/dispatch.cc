// Leases: which job goes to which group, and what happens when a lease is lost.
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "scheduler/scheduler_service.h"

namespace optserve::scheduler {
namespace {

constexpr size_t kTokensPerMessage = 200'000;  // about 1 MB
constexpr size_t kItemsPerMessage = 1'024;
constexpr double kRetryDelaySeconds = 1;
constexpr double kRetryDelaySecondsMax = 30;

int64_t kv_need(const Job& job) {
  const auto tokens = static_cast<int64_t>(job.prompt_ids.size()) + job.spec.max_new_tokens;
  return (tokens + limits::kKvBlockTokens - 1) / limits::kKvBlockTokens * limits::kKvBlockTokens;
}

}  // namespace

JobQueue& SchedulerService::queue_of(const Job& job) {
  return job.is_generation() ? queues_[job.spec.model] : conversions_;
}

void SchedulerService::enqueue(Job& job, Instant now) {
  if (job.is_generation()) {
    // A recovered job may hold its last token already; the worker's word for it is lost.
    const bool ended = !job.output.empty() && job.output.back() == kEndOfText && !job.spec.sampling.ignore_eos;
    if (ended) job.finish_reason = protocol::FinishReason::kEndOfText;
    if (!ended && job.output.size() >= static_cast<size_t>(job.spec.max_new_tokens)) {
      job.finish_reason = protocol::FinishReason::kLength;
    }
    if (job.finish_reason != protocol::FinishReason::kNone) {
      jobs_.set_stage(job, Stage::kDecoding);
      decode_more(job);
      return;
    }
    const Status status = check_length(job.spec.model, job.prompt_ids.size(), job.spec.max_new_tokens);
    if (!status.ok()) {
      finish(job,
             {protocol::JobState::kFailed, protocol::FinishReason::kError, status.refusal().code,
              status.refusal().message},
             now);
      return;
    }
  }
  jobs_.set_stage(job, Stage::kWaiting);
  queue_of(job).push(job);
  dispatch_wanted_ = true;
  decode_more(job);
}

void SchedulerService::dispatch(Instant now, Outbox& out) {
  dispatch_wanted_ = false;
  if (draining_) return;
  expire_jobs(now);  // between two ticks, or after the process stood still: their time is not a worker's any more
  Dispatching round;
  for (auto it = queues_.begin(); it != queues_.end();) {
    dispatch_queue(it->second, it->first, round, now);
    it = it->second.empty() ? queues_.erase(it) : std::next(it);
  }
  dispatch_queue(conversions_, "", round, now);
  for (auto& [worker, batch] : round.batches) {
    if (!batch.dispatch.items.empty()) {
      out.send_after(batch.after, worker->peer, std::move(batch.dispatch));
    }
    for (protocol::ConvertDispatch& conversion : batch.conversions) {
      out.send_after(batch.after, worker->peer, std::move(conversion));
    }
  }
}

void SchedulerService::dispatch_queue(JobQueue& queue, const std::string& model, Dispatching& round, Instant now) {
  if (queue.empty()) return;
  const auto kind = &queue == &conversions_ ? protocol::ServiceKind::kConverter : protocol::ServiceKind::kWorker;
  std::vector<ServiceEntry*> serving, free;
  for (ServiceEntry* worker : services_.of_kind(kind)) {
    if (kind == protocol::ServiceKind::kWorker && !worker->serves(model)) continue;
    if (worker->draining) continue;
    serving.push_back(worker);
    if (now >= worker->paused_until && worker->free_slots() > 0) free.push_back(worker);
  }
  while (!queue.empty() && !free.empty()) {
    const auto least_loaded = std::min_element(free.begin(), free.end(), [](const auto* a, const auto* b) {
      return static_cast<int64_t>(a->leases.size()) * b->info.max_sequences <
             static_cast<int64_t>(b->leases.size()) * a->info.max_sequences;
    });
    ServiceEntry& worker = **least_loaded;
    Job* job = queue.take([&](const Job& candidate) { return judge(candidate, worker, serving.size() > 1); });
    if (job != nullptr) lease(*job, worker, round, now);
    const Dispatching::Batch* batch = job != nullptr ? &round.batches[&worker] : nullptr;
    const bool full =
        batch != nullptr && (batch->tokens >= kTokensPerMessage || batch->dispatch.items.size() >= kItemsPerMessage);
    if (full) dispatch_wanted_ = true;  // the rest goes with the next flush
    if (job == nullptr || full || worker.free_slots() <= 0) free.erase(least_loaded);
  }
}

JobQueue::Verdict SchedulerService::judge(const Job& job, const ServiceEntry& worker, bool has_others) const {
  // A retry goes elsewhere if there is an elsewhere.
  if (has_others && job.avoid == worker.info.instance) return JobQueue::Verdict::kSkip;
  if (!job.is_generation() || worker.info.kv_tokens == 0 || worker.leases.empty()) return JobQueue::Verdict::kTake;
  // A large job at the head is not overtaken by smaller ones for ever: it waits for room.
  return worker.kv_reserved + kv_need(job) <= worker.info.kv_tokens ? JobQueue::Verdict::kTake
                                                                    : JobQueue::Verdict::kStop;
}

void SchedulerService::lease(Job& job, ServiceEntry& worker, Dispatching& round, Instant now) {
  jobs_.set_stage(job, Stage::kLeased);
  job.lease = next_lease_++;
  job.worker = &worker;
  ++job.attempts;
  // The attempt is on disk before the work can do harm.
  job.lease_sequence = store_.append(journal::Leased{job.id, job.order, {term_, job.lease}, job.attempts});
  if (worker.leases.empty()) worker.progressed = now;
  worker.leases.emplace(job.lease, &job);
  metrics_.leases.add();
  if (job.leased_at == Instant{}) {
    job.leased_at = now;
    metrics_.queue_seconds.observe(std::chrono::duration<double>(now - job.ready_at).count());
    metrics_.prompt_tokens.add(static_cast<double>(job.prompt_ids.size()));
  }
  Dispatching::Batch& batch = round.batches[&worker];
  batch.after = std::max(batch.after, job.lease_sequence);
  if (!job.is_generation()) {
    batch.conversions.push_back({term_, job.lease, job.id, job.spec.convert.value_or(protocol::ConvertSpec{})});
    return;
  }
  job.kv_reserved = kv_need(job);
  worker.kv_reserved += job.kv_reserved;
  batch.dispatch.term = term_;
  protocol::DispatchItem item;
  item.lease = job.lease;
  item.job = job.id;
  item.model = job.spec.model;
  item.tokens.reserve(job.prompt_ids.size() + job.output.size());
  item.tokens = job.prompt_ids;
  item.tokens.insert(item.tokens.end(), job.output.begin(), job.output.end());
  item.prompt_tokens = static_cast<int32_t>(job.prompt_ids.size());
  item.max_new_tokens = job.spec.max_new_tokens;
  item.sampling = job.spec.sampling;
  item.prompt_logprobs = job.spec.prompt_logprobs && job.prompt_logprobs.size() + 1 < job.prompt_ids.size();
  if (item.prompt_logprobs) job.prompt_logprobs.clear();
  batch.tokens += item.tokens.size();
  batch.dispatch.items.push_back(std::move(item));
}

void SchedulerService::release(Job& job) {
  if (job.lease == 0) return;
  job.worker->leases.erase(job.lease);
  job.worker->kv_reserved -= std::exchange(job.kv_reserved, 0);
  job.worker = nullptr;
  job.lease = 0;
  dispatch_wanted_ = true;
}

void SchedulerService::revoke(Job& job) {
  if (job.lease == 0) return;
  auto& [after, leases] = revokes_[{job.worker->peer, term_}];
  after = std::max(after, job.lease_sequence);  // must not overtake the Dispatch that it takes back
  leases.push_back(job.lease);
  release(job);
}

void SchedulerService::send_revokes(Outbox& out) {
  for (auto& [to, item] : std::exchange(revokes_, {})) {
    auto& [after, leases] = item;
    for (size_t first = 0; first < leases.size(); first += limits::kMessageArrayMax) {
      const size_t last = std::min(leases.size(), first + limits::kMessageArrayMax);
      protocol::Revoke revoke{
          to.second, {leases.begin() + static_cast<ptrdiff_t>(first), leases.begin() + static_cast<ptrdiff_t>(last)}};
      out.send_after(after, to.first, std::move(revoke));
    }
  }
}

void SchedulerService::lose_lease(Job& job, const std::string& why, bool counts, Instant now) {
  metrics_.leases_lost.add();
  job.avoid = job.worker->info.instance;
  release(job);
  if (!counts) --job.attempts;
  store_.append(journal::Leased{job.id, job.order, {term_, 0}, job.attempts});
  if (job.attempts >= job.spec.max_attempts) {
    finish(job,
           {protocol::JobState::kDead, protocol::FinishReason::kError, ErrorCode::kAttemptsExhausted,
            "attempt " + std::to_string(job.attempts) + " of " + std::to_string(job.spec.max_attempts) +
                " was lost: " + why},
           now);
    return;
  }
  if (job.attempts <= 1) {  // the first loss is mostly not the job's fault
    enqueue(job, now);
    return;
  }
  const double limit = std::min(kRetryDelaySecondsMax, kRetryDelaySeconds * std::exp2(job.attempts - 2));
  const double delay = std::uniform_real_distribution<double>(0, limit)(random_);
  jobs_.set_stage(job, Stage::kDelayed);
  job.delayed_until = now + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(delay));
  delayed_.emplace(job.delayed_until, &job);
}

void SchedulerService::undelivered_dispatch(ServiceEntry& worker, const std::vector<uint64_t>& leases, Instant now) {
  for (const uint64_t lease : leases) {
    const auto found = worker.leases.find(lease);
    if (found != worker.leases.end()) lose_lease(*found->second, "it could not be delivered", false, now);
  }
}

Job* SchedulerService::leased_job(ServiceEntry& from, uint64_t term, uint64_t lease) {
  if (term == term_) {
    const auto found = from.leases.find(lease);
    if (found != from.leases.end()) return found->second;
  }
  metrics_.stale_tokens.add();
  revokes_[{from.peer, term}].second.push_back(lease);
  return nullptr;
}

void SchedulerService::on(ServiceEntry& from, const protocol::LeaseFailed& message, Instant now, Outbox&) {
  Job* job = leased_job(from, message.term, message.lease);
  if (job == nullptr) return;
  log_warn("lease_failed", {{"job", job->id.hex()},
                            {"worker", from.info.name},
                            {"code", error_code_name(message.code)},
                            {"transient", message.transient ? 1 : 0}});
  if (message.transient) {
    lose_lease(*job, message.message, true, now);
    return;
  }
  release(*job);
  finish(*job, {protocol::JobState::kFailed, protocol::FinishReason::kError, message.code, message.message}, now);
}

}  // namespace optserve::scheduler
