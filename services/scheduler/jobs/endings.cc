#include "scheduler/jobs/endings.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/trace_context.h"
#include "protocol/codec.h"
#include "scheduler/jobs/answers.h"
#include "scheduler/jobs/job_times.h"
#include "scheduler/jobs/whole_characters.h"

namespace optserve::scheduler {
namespace {

constexpr size_t kEndMessageBytesMax = 1'024;

int64_t milliseconds_of(Duration time) { return std::chrono::duration_cast<milliseconds>(time).count(); }

}  // namespace

using protocol::JobState;
using sampling::FinishReason;

void Endings::succeed(Job& job, std::string message, Instant now) {
  finish(job, {JobState::kSucceeded, job.output().finish_reason, std::nullopt, std::move(message)}, now);
}

void Endings::fail(Job& job, const Refusal& why, Instant now) {
  finish(job, {JobState::kFailed, sampling::FinishReason::kError, why.code, why.message}, now);
}

void Endings::cancel(Job& job, std::string why, Instant now) {
  finish(job, {JobState::kCancelled, sampling::FinishReason::kCancelled, ErrorCode::kCancelled, std::move(why)}, now);
}

void Endings::give_up(Job& job, std::string why, Instant now) {
  finish(job, {JobState::kDead, sampling::FinishReason::kError, ErrorCode::kAttemptsExhausted, std::move(why)}, now);
}

void Endings::expire_due(Instant now) {
  while (Job* job = tables_.jobs.expired(now)) {
    std::string message = limit_message(*job, next_limit(*job).kind);
    finish(*job, {JobState::kExpired, sampling::FinishReason::kError, ErrorCode::kDeadlineExceeded, std::move(message)},
           now);
  }
}

void Endings::finish(Job& job, End end, Instant now) {
  leases_.revoke(job);
  tables_.tokenizers.drop(job);
  job.slot.queue->jobs.leave(job);
  tables_.bounds.remove(job);
  job.attempts().end_try(job.age_ms(now), "");
  auto result = std::make_shared<protocol::JobResult>(describe(job));
  result->state = end.state;
  result->finish_reason = end.reason;
  result->error = end.error;
  result->message = whole_characters(end.message, kEndMessageBytesMax);
  result->timings.total_ms = job.age_ms(now);
  if (job.times.leased_at != Instant{}) result->timings.run_ms = milliseconds_of(now - job.times.leased_at);
  const int64_t kept_ms = end.state == JobState::kDead
                              ? std::max(job.spec().result_ttl_ms, milliseconds_of(tables_.options.dead_ttl))
                              : job.spec().result_ttl_ms;
  const int64_t expires = tables_.store.time_ms(now) + kept_ms;
  const uint64_t sequence = tables_.store.append(record_of(job, *result, expires));
  tables_.known.ended(job, result, sequence, expires);
  tables_.streams.finish(job, result, sequence);
  if (result->state == JobState::kSucceeded && job.is_generation()) {
    const auto used = static_cast<int64_t>(job.prompt().ids.size()) +
                      job.tokens_each() * static_cast<int64_t>(job.output().ids.size());
    job.slot.queue->load.learn_job(used, job.slot.cost);
  }
  observe(job, *result, now);
  tables_.jobs.end(job);
}

journal::Finished Endings::record_of(const Job& job, const protocol::JobResult& result, int64_t expires_at_ms) const {
  journal::Finished record;
  record.order = job.order;
  const bool is_work = result.state == JobState::kSucceeded || result.state == JobState::kFailed;
  if (is_work && job.attempts().last_lease != 0) record.token = {tables_.term, job.attempts().last_lease};
  record.expires_at_ms = expires_at_ms;
  record.accepted_wall_ms = job.accepted_wall_ms;
  record.tenant = job.spec().tenant;
  record.model = job.spec().model;
  record.payload_sha256 = job.payload_sha256();
  record.result = result;
  if (result.state == JobState::kDead) record.encoded_spec = protocol::encode_job_spec(job.spec());
  return record;
}

void Endings::observe(const Job& job, const protocol::JobResult& result, Instant now) {
  tables_.metrics.ended[static_cast<size_t>(result.state)].add();
  if (job.is_generation()) observe_generation(job, result, now);
  ++(result.state == JobState::kSucceeded   ? succeeded_
     : result.state == JobState::kCancelled ? cancelled_
     : result.state == JobState::kExpired   ? expired_
                                            : failed_);
  if (result.state == JobState::kDead || result.state == JobState::kFailed) {
    log_warn("job_failed", {{"job", job.id.hex()},
                            {"state", protocol::job_state_name(result.state)},
                            {"code", result.error ? error_code_name(*result.error) : ""},
                            {"attempts", result.attempts},
                            {"message", result.message},
                            trace_field(job.spec().traceparent)});
  } else if (is_sampled(job.spec().traceparent)) {
    log_info("job_ended", {{"job", job.id.hex()},
                           {"state", protocol::job_state_name(result.state)},
                           {"output_tokens", result.ids.size()},
                           {"total_ms", result.timings.total_ms},
                           trace_field(job.spec().traceparent)});
  }
}

void Endings::observe_generation(const Job& job, const protocol::JobResult& result, Instant now) {
  const auto between = [](Instant from, Instant to) { return std::chrono::duration<double>(to - from).count(); };
  const JobTimes& times = job.times;
  SchedulerMetrics::OfModel& model = tables_.metrics.of_model(job.spec().model);
  model.ended[static_cast<size_t>(result.state)].add();
  model.generated[static_cast<size_t>(result.finish_reason)].add();
  model.total_seconds.observe(between(times.accepted_at, now));
  if (times.last_token_at != Instant{}) {
    model.decode_seconds.observe(between(times.first_token_at, times.last_token_at));
    if (job.output().is_complete()) model.detokenize_seconds.observe(between(times.last_token_at, now));
  }
  if (result.state == JobState::kSucceeded) model.output_size.observe(static_cast<double>(job.output().ids.size()));
  const Duration slow = tables_.options.slow_job;
  const Duration first = (times.first_token_at != Instant{} ? times.first_token_at : now) - times.accepted_at;
  if (slow == Duration::zero() || first < slow) return;
  log_warn("job_slow", {{"job", job.id.hex()},
                        {"model", job.spec().model},
                        {"tenant", job.spec().tenant},
                        {"key", job.spec().key},
                        {"state", protocol::job_state_name(result.state)},
                        {"first_token_ms", milliseconds_of(first)},
                        {"encode_ms", result.timings.encode_ms},
                        {"queue_ms", result.timings.queue_ms},
                        {"total_ms", result.timings.total_ms},
                        {"prompt_tokens", job.prompt().ids.size()},
                        {"output_tokens", job.output().ids.size()},
                        {"attempts", result.attempts},
                        trace_field(job.spec().traceparent)});
}

std::string last_attempt(const Job& job) {
  return "attempt " + std::to_string(job.attempts().count) + " of " + std::to_string(job.spec().max_attempts);
}

}  // namespace optserve::scheduler
