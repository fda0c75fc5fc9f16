// Leases: which job goes to which group, and what happens when a lease is lost.
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "scheduler/scheduler_service.h"
#include "scheduler/jobs/whole_characters.h"

namespace optserve::scheduler {
namespace {

constexpr size_t kTokensPerMessage = 200'000;  // about 1 MB
constexpr size_t kItemsPerMessage = 1'024;
constexpr size_t kLeasesPerTurn = 4'096;  // the rest goes with the next flush
constexpr double kRetryDelaySeconds = 1;
constexpr double kRetryDelaySecondsMax = 30;

}  // namespace

void SchedulerService::enqueue(Job& job, Instant now) {
  if (job.is_generation()) {
    // A recovered job may hold its last token already; the worker's word for it is lost.
    const bool ended = !job.output.empty() && job.output.back() == kEndOfText && !job.spec.sampling.ignore_eos;
    if (ended) job.finish_reason = protocol::FinishReason::kEndOfText;
    const bool scores = job.only_scores() && job.prompt_ids.size() > 1;
    if (!ended && !scores && job.output.size() >= static_cast<size_t>(job.spec.max_new_tokens)) {
      job.finish_reason = protocol::FinishReason::kLength;
    }
    if (job.finish_reason != protocol::FinishReason::kNone) {
      job.queue->jobs.leave(job);
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
  job.hurry_at = half_of_time_to_start(job);
  job.queue->jobs.push(job);
  queues_.want(*job.queue);
  decode_more(job);
}

void SchedulerService::dispatch(Instant now, Outbox& out) {
  const std::vector<ModelQueue*> wanted = queues_.take_wanted();
  if (draining_) return;
  expire_jobs(now);  // between two ticks, or after the process stood still: their time is not a worker's any more
  Dispatching round;
  for (ModelQueue* queue : wanted) {
    if (modes_.starts(queue->name)) dispatch_queue(*queue, round, now);
  }
  for (auto& [serial, batch] : round.batches) {
    for (protocol::Dispatch& dispatch : batch.dispatches) {
      out.send_after(batch.after, batch.to, std::move(dispatch));
    }
    for (protocol::ConvertDispatch& conversion : batch.conversions) {
      out.send_after(batch.after, batch.to, std::move(conversion));
    }
  }
}

void SchedulerService::dispatch_queue(ModelQueue& queue, Dispatching& round, Instant now) {
  while (!queue.jobs.empty() && queue.workers.has_free()) {
    if (round.leases >= kLeasesPerTurn) {
      queues_.want(queue);
      return;
    }
    ServiceEntry* worker = nullptr;
    Job* job = queue.jobs.take(now, [&](const Job& candidate) {
      const ModelQueues::Choice choice = queues_.choose(queue, candidate);
      worker = choice.worker;
      return choice.verdict;
    });
    if (job == nullptr) return;
    lease(*job, *worker, round, now);
  }
}

void SchedulerService::lease(Job& job, ServiceEntry& worker, Dispatching& round, Instant now) {
  jobs_.set_stage(job, Stage::kLeased);
  job.lease = job.last_lease = next_lease_++;
  job.worker = &worker;
  ++job.attempts;
  // The attempt is on disk before the work can do harm.
  job.lease_sequence = store_.append(journal::Leased{job.id, job.order, {term_, job.lease}, job.attempts});
  if (worker.leases.empty()) worker.progressed = now;
  worker.leases.emplace(job.lease, &job);
  queues_.on_leased(worker, job);
  job.started = true;
  job.attempt_at = now;
  jobs_.set_deadline(job, next_limit(job).at);
  metrics_.leases.add();
  if (job.leased_at == Instant{}) {
    job.leased_at = now;
    metrics_.queue_seconds.observe(std::chrono::duration<double>(now - job.ready_at).count());
    metrics_.prompt_tokens.add(static_cast<double>(job.prompt_ids.size()));
  }
  ++round.leases;
  Dispatching::Batch& batch = round.batches[worker.serial];
  batch.to = worker.peer;
  batch.after = std::max(batch.after, job.lease_sequence);
  if (!job.is_generation()) {
    batch.conversions.push_back({term_, job.lease, job.id, job.spec.convert.value_or(protocol::ConvertSpec{})});
    return;
  }
  const bool is_full = !batch.dispatches.empty() &&
                       (batch.tokens >= kTokensPerMessage || batch.dispatches.back().items.size() >= kItemsPerMessage);
  if (batch.dispatches.empty() || is_full) {
    batch.dispatches.push_back({term_, {}});
    batch.tokens = 0;
  }
  batch.dispatches.back().items.push_back(dispatch_item(job, now));
  batch.tokens += batch.dispatches.back().items.back().tokens.size();
}

protocol::DispatchItem SchedulerService::dispatch_item(Job& job, Instant now) {
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
  item.remaining_ms = remaining_ms(job, now);
  if (options_.isolate_tenants) item.cache_salt = job.spec.tenant;
  item.rules = job.spec.rules;
  item.rules.bad_words.insert(item.rules.bad_words.end(), job.bad_word_ids.begin(), job.bad_word_ids.end());
  return item;
}

void SchedulerService::release(Job& job) {
  if (job.lease == 0) return;
  job.worker->leases.erase(job.lease);
  queues_.on_released(*job.worker, job);
  job.worker = nullptr;
  job.lease = 0;
  jobs_.set_deadline(job, next_limit(job).at);
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
  job.last_lease = 0;
  if (job.searches_beams()) {  // the next search may end otherwise
    job.output.clear(), job.logprobs.clear(), job.best.clear(), job.hypotheses.clear();
  }
  if (counts) {
    job.losses.emplace_back(whole_characters(why, limits::kLossReasonBytesMax));
  } else {
    --job.attempts;
  }
  store_.append(
      journal::Leased{job.id, job.order, {term_, 0}, job.attempts, counts ? job.losses.back() : std::string()});
  if (job.attempts >= job.spec.max_attempts) {
    give_up(job, last_attempt(job) + " was lost: " + why, now);
    return;
  }
  if (job.attempts <= 1) {  // the first loss is mostly not the job's fault
    enqueue(job, now);
    return;
  }
  const double limit = std::min(kRetryDelaySecondsMax, kRetryDelaySeconds * std::exp2(job.attempts - 2));
  const double delay = std::uniform_real_distribution<double>(0, limit)(random_);
  this->delay(job, now + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(delay)));
}

std::string SchedulerService::last_attempt(const Job& job) {
  return "attempt " + std::to_string(job.attempts) + " of " + std::to_string(job.spec.max_attempts);
}

void SchedulerService::give_up(Job& job, std::string why, Instant now) {
  finish(job,
         {protocol::JobState::kDead, protocol::FinishReason::kError, ErrorCode::kAttemptsExhausted, std::move(why)},
         now);
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
