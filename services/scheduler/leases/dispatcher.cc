#include "scheduler/leases/dispatcher.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "base/trace_context.h"
#include "scheduler/jobs/job_times.h"
#include "scheduler/jobs/whole_characters.h"

namespace optserve::scheduler {
namespace {

constexpr size_t kTokensPerDispatch = 200'000;  // about 1 MB
constexpr size_t kItemsPerDispatch = 1'024;
constexpr size_t kLeasesPerTurn = 4'096;  // the rest goes with the next flush
constexpr double kRetryDelaySeconds = 1;
constexpr double kRetryDelaySecondsMax = 30;

}  // namespace

void Dispatcher::dispatch(Instant now, transport::Outbox& out) {
  const std::vector<ModelQueue*> wanted = tables_.queues.take_wanted();
  if (tables_.draining) return;
  // A job's time may have run out since the last tick, or while the process was stopped; no worker gets such a job.
  endings_.expire_due(now);
  Round round;
  for (ModelQueue* queue : wanted) {
    if (tables_.modes.starts(queue->name)) dispatch_queue(*queue, round, now);
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

void Dispatcher::dispatch_queue(ModelQueue& queue, Round& round, Instant now) {
  while (!queue.jobs.empty() && queue.workers.has_free()) {
    if (round.leases >= kLeasesPerTurn) {
      tables_.queues.want(queue);
      return;
    }
    ServiceEntry* worker = nullptr;
    Job* job = queue.jobs.take(now, [&](const Job& candidate) {
      if (!tables_.running.may_begin(candidate.spec().tenant, queue)) return FairQueue::Verdict::kHold;
      const ModelQueues::Choice choice = tables_.queues.choose(queue, candidate);
      worker = choice.worker;
      return choice.verdict;
    });
    if (job == nullptr) return;
    leases_.give(*job, *worker, now);
    ++round.leases;
    Batch& batch = round.batches[worker->serial];
    batch.to = worker->peer;
    add(*job, batch, now);
  }
}

void Dispatcher::add(Job& job, Batch& batch, Instant now) const {
  batch.after = std::max(batch.after, job.lease().sequence);
  if (!job.is_generation()) {
    batch.conversions.push_back({tables_.term, job.lease().number, job.id,
                                 job.spec().convert.value_or(protocol::ConvertSpec{}), job.spec().traceparent});
    return;
  }
  const bool is_full = !batch.dispatches.empty() && (batch.tokens >= kTokensPerDispatch ||
                                                     batch.dispatches.back().items.size() >= kItemsPerDispatch);
  if (batch.dispatches.empty() || is_full) {
    batch.dispatches.push_back({tables_.term, {}});
    batch.tokens = 0;
  }
  batch.dispatches.back().items.push_back(item_of(job, now));
  batch.tokens += batch.dispatches.back().items.back().tokens.size();
}

protocol::DispatchItem Dispatcher::item_of(Job& job, Instant now) const {
  const std::vector<TokenId>& prompt = job.prompt().ids;
  const std::vector<TokenId>& output = job.output().ids;
  protocol::DispatchItem item;
  item.lease = job.lease().number;
  item.job = job.id;
  item.model = job.spec().model;
  item.tokens.reserve(prompt.size() + output.size());
  item.tokens = prompt;
  item.tokens.insert(item.tokens.end(), output.begin(), output.end());
  item.prompt_tokens = static_cast<int32_t>(prompt.size());
  item.max_new_tokens = job.spec().max_new_tokens;
  item.sampling = job.spec().sampling;
  item.prompt_logprobs = job.lacks_prompt_logprobs();
  if (item.prompt_logprobs) {
    item.prompt_best = job.spec().prompt_best;
    job.output().prompt_logprobs.clear();
    job.output().prompt_best.clear();
  }
  item.remaining_ms = remaining_ms(job, now);
  if (tables_.options.isolate_tenants) item.cache_salt = job.spec().tenant;
  item.traceparent = job.spec().traceparent;
  item.rules = job.spec().rules;
  item.rules.bad_words.insert(item.rules.bad_words.end(), job.prompt().bad_word_ids.begin(),
                              job.prompt().bad_word_ids.end());
  return item;
}

void Dispatcher::lose(Job& job, const std::string& why, bool counts, Instant now) {
  JobAttempts& attempts = job.attempts();
  tables_.metrics.leases_lost.add();
  attempts.avoid = job.lease().worker->info.instance;
  leases_.release(job);
  attempts.last_lease = 0;
  if (job.searches_beams()) {  // the next search may have another result
    job.output().ids.clear();
    job.output().logprobs.clear();
    job.output().best.clear();
    job.output().hypotheses.clear();
  }
  std::string reason(whole_characters(why, limits::kLossReasonBytesMax));
  attempts.end_try(job.age_ms(now), reason);
  if (counts) {
    attempts.losses.push_back(std::move(reason));
  } else {
    --attempts.count;
  }
  tables_.store.append(journal::Leased{
      job.id, job.order, {tables_.term, 0}, attempts.count, counts ? attempts.losses.back() : std::string()});
  if (attempts.count >= job.spec().max_attempts) {
    endings_.give_up(job, last_attempt(job) + " was lost: " + why, now);
    return;
  }
  tables_.metrics.retries.add();
  if (attempts.count <= 1) {  // the first loss is usually not the job's fault
    preparation_.enqueue(job, now);
    return;
  }
  const double limit = std::min(kRetryDelaySecondsMax, kRetryDelaySeconds * std::exp2(attempts.count - 2));
  const double delay = std::uniform_real_distribution<double>(0, limit)(random_);
  tables_.jobs.delay(job, now + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(delay)));
}

void Dispatcher::reject(Job& job, const std::string& why, Instant now) {
  leases_.tell_to_stop(job.lease().worker->peer, tables_.term, job.lease().number);
  lose(job, why, true, now);
}

void Dispatcher::undelivered(ServiceEntry& worker, const std::vector<uint64_t>& leases, Instant now) {
  for (const uint64_t lease : leases) {
    const auto found = worker.leases.find(lease);
    if (found != worker.leases.end()) lose(*found->second, "it could not be delivered", false, now);
  }
}

void Dispatcher::on(ServiceEntry& from, const protocol::LeaseFailed& message, Instant now) {
  Job* job = leases_.held_job(from, message.term, message.lease);
  if (job == nullptr) return;
  log_warn("lease_failed", {{"job", job->id.hex()},
                            {"worker", from.info.name},
                            {"code", error_code_name(message.code)},
                            {"transient", message.transient ? 1 : 0},
                            trace_field(job->spec().traceparent)});
  if (message.transient) {
    lose(*job, message.message, true, now);
    return;
  }
  leases_.release(*job);
  endings_.fail(*job, refuse(message.code, message.message), now);
}

}  // namespace optserve::scheduler
