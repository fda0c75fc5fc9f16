#include "scheduler/jobs/answers.h"

#include <algorithm>
#include <utility>

#include "scheduler/jobs/whole_characters.h"

namespace optserve::scheduler {
namespace {

int64_t elapsed_ms(Instant from, Instant to) {
  return from == Instant{} || to == Instant{} ? 0 : std::chrono::duration_cast<milliseconds>(to - from).count();
}

}  // namespace

void JobAttempts::begin_try(std::string service, int64_t began_ms) {
  if (tries.size() >= kTriesMax) tries.erase(tries.begin());
  tries.push_back({count, began_ms, -1, std::move(service), ""});
}

void JobAttempts::end_try(int64_t ended_ms, std::string loss) {
  if (tries.empty() || tries.back().ended_ms >= 0) return;
  tries.back().ended_ms = ended_ms;
  tries.back().loss = std::move(loss);
}

void refuse_to(const transport::Peer& to, uint64_t request, const Refusal& why, transport::Outbox& out,
               int64_t retry_after_ms) {
  out.send(to, protocol::Refused{request, why.code, why.message, retry_after_ms});
}

Refusal unknown_job(const JobId& job) {
  return refuse(ErrorCode::kNotFound, "job " + job.hex() + " is not known, or its result has expired");
}

protocol::JobResult describe(const Job& job) {
  const JobOutput& output = job.output();
  const JobTimes& times = job.times;
  protocol::JobResult result;
  result.job = job.id;
  result.key = job.spec().key;
  result.tenant = job.spec().tenant;
  result.group = job.spec().group;
  result.losses = job.attempts().losses;
  result.state = job.state();
  result.text = output.text;
  result.ids = output.ids;
  result.prompt_logprobs = output.prompt_logprobs;
  result.prompt_best = output.prompt_best;
  if (job.spec().prompt_logprobs) result.prompt_ids = job.prompt().ids;
  result.logprobs = output.logprobs;
  result.best = output.best;
  result.hypotheses = output.hypotheses;
  result.prompt_tokens = static_cast<int32_t>(job.prompt().ids.size());
  result.attempts = job.attempts().count;
  result.progress_done = job.is_generation() ? static_cast<int64_t>(output.ids.size()) : output.bytes_done;
  result.progress_total = job.is_generation() ? job.spec().max_new_tokens : output.bytes_total;
  result.timings.encode_ms = elapsed_ms(std::max(times.begins_at, times.accepted_at), times.ready_at);
  result.timings.queue_ms = elapsed_ms(times.ready_at, times.leased_at);
  result.timings.first_token_ms = elapsed_ms(times.accepted_at, times.first_token_at);
  result.kind = job.spec().kind;
  result.traceparent = job.spec().traceparent;
  result.prompt = whole_characters(job.spec().prompt, job.prompt().bytes_shown);
  result.tries = job.attempts().tries;
  return result;
}

}  // namespace optserve::scheduler
