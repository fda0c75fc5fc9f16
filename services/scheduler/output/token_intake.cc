#include "scheduler/output/token_intake.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "scheduler/jobs/answers.h"

namespace optserve::scheduler {

using sampling::FinishReason;

namespace {

Status check_lengths(const protocol::Tokens& message) {
  const size_t count = message.leases.size();
  const bool has_logprobs = !message.logprobs.empty() || !message.best.empty();
  if (message.positions.size() == count && message.tokens.size() == count && message.finished.size() == count &&
      (!has_logprobs || (message.logprobs.size() == count && message.best.size() == count))) {
    return ok_status();
  }
  return refuse(ErrorCode::kBadRequest,
                "Tokens: arrays of " + std::to_string(count) + ", " + std::to_string(message.positions.size()) + ", " +
                    std::to_string(message.tokens.size()) + ", " + std::to_string(message.finished.size()) + ", " +
                    std::to_string(message.logprobs.size()) + " and " + std::to_string(message.best.size()) +
                    " entries, expected equal lengths");
}

bool is_token(TokenId id) { return id >= 0 && id < static_cast<TokenId>(limits::kVocabularyMax); }

// The reasons that a worker may give.
bool is_workers_reason(sampling::FinishReason reason) {
  return reason == sampling::FinishReason::kNone || reason == sampling::FinishReason::kEndOfText ||
         reason == sampling::FinishReason::kLength || reason == sampling::FinishReason::kStop;
}

// The hypotheses of a beam search come before its last token, and its output is the first of them.
bool fits_hypotheses(const Job& job, TokenId id, sampling::FinishReason reason) {
  if (!job.searches_beams()) return true;
  if (job.output().hypotheses.empty()) return reason == sampling::FinishReason::kNone;
  const std::vector<TokenId>& best = job.output().hypotheses.front().ids;
  const size_t position = job.output().ids.size();
  const bool is_last = position + 1 == best.size();
  return position < best.size() && best[position] == id && is_last == (reason != sampling::FinishReason::kNone);
}

// The token at the job's next position.
bool fits_job(const Job& job, const protocol::Tokens& message, size_t index) {
  const TokenId id = message.tokens[index];
  const auto reason = static_cast<sampling::FinishReason>(message.finished[index]);
  const bool is_last_allowed = job.output().ids.size() + 1 >= static_cast<size_t>(job.spec().max_new_tokens);
  return is_token(id) && is_workers_reason(reason) && !(job.wants_logprobs() && message.logprobs.empty()) &&
         !(is_last_allowed && reason == sampling::FinishReason::kNone) && fits_hypotheses(job, id, reason);
}

}  // namespace

Job* TokenIntake::worked_on(ServiceEntry& from, uint64_t term, uint64_t lease, Instant now) {
  Job* job = leases_.held_job(from, term, lease);
  if (job != nullptr) from.note_step(now);
  return job;
}

void TokenIntake::on(ServiceEntry& from, const protocol::Tokens& message, Instant now, transport::Outbox& out) {
  const size_t count = message.leases.size();
  if (Status status = check_lengths(message); !status.ok()) {
    refuse_to(from.peer, 0, status.refusal(), out);
    return;
  }
  from.note_step(now);
  SchedulerMetrics::OfModel nowhere;  // for tokens of a service without a model, which belong to no job
  const auto& models = from.info.models;
  SchedulerMetrics::OfModel& model = models.empty() ? nowhere : tables_.metrics.of_model(models.front().name);
  model.tokens.add(static_cast<double>(count));
  const bool saturated = tables_.queues.is_saturated(from);
  int64_t processed = 0;
  for (size_t i = 0; i < count; ++i) {
    Job* job = leases_.held_job(from, message.term, message.leases[i]);
    if (job == nullptr) continue;
    if (message.positions[i] == job->output().ids.size()) processed += ModelQueues::take_processed(*job);
    take_token(from, *job, {message, i, model}, now);
  }
  tables_.queues.on_processed(from, processed, saturated, now);
}

void TokenIntake::take_token(ServiceEntry& from, Job& job, const Token& token, Instant now) {
  const auto& [message, index, model] = token;
  JobOutput& output = job.output();
  const size_t position = message.positions[index];
  if (position < output.ids.size()) {
    tables_.metrics.duplicate_tokens.add();
    return;
  }
  const TokenId id = message.tokens[index];
  // They come before the first token; if some are missing, they were lost on their way.
  const bool lacks_logprobs = job.lacks_prompt_logprobs();
  if (position > output.ids.size() || lacks_logprobs || !fits_job(job, message, index)) {
    log_warn("bad_token", {{"worker", from.info.name},
                           {"position", position},
                           {"expected", output.ids.size()},
                           {"id", id},
                           {"finished", static_cast<int>(message.finished[index])}});
    dispatcher_.reject(job,
                       "the worker sent a token that does not fit (position " + std::to_string(position) +
                           ", expected " + std::to_string(output.ids.size()) +
                           (lacks_logprobs ? " after all log-probabilities)" : ")"),
                       now);
    return;
  }
  output.ids.push_back(id);
  if (job.wants_logprobs()) {
    output.logprobs.push_back(message.logprobs[index]);
    output.best.push_back(message.best[index]);
  }
  note_time(job.times, model, now);
  const auto reason = static_cast<sampling::FinishReason>(message.finished[index]);
  if (reason != sampling::FinishReason::kNone) {
    take_end(job, reason, now);
    return;
  }
  save_progress(job, now);
  decoding_.decode_more(job, now);
}

void TokenIntake::note_time(JobTimes& times, SchedulerMetrics::OfModel& model, Instant now) {
  const auto since = [now](Instant from) { return std::chrono::duration<double>(now - from).count(); };
  if (times.first_token_at == Instant{}) {
    times.first_token_at = now;
    model.first_token_seconds.observe(since(times.accepted_at));
    if (times.leased_at != Instant{}) model.prefill_seconds.observe(since(times.leased_at));
  } else {
    model.inter_token_seconds.observe(since(times.last_token_at));
  }
  times.last_token_at = now;
}

void TokenIntake::take_end(Job& job, sampling::FinishReason reason, Instant now) {
  job.output().finish_reason = reason;
  leases_.release(job);
  tables_.jobs.move(job, Stage::kDecoding);
  decoding_.decode_more(job, now);
}

void TokenIntake::save_progress(Job& job, Instant now) {
  JobOutput& output = job.output();
  if (job.searches_beams()) return;  // without its hypotheses it starts again
  if (output.saved_at == Instant{}) output.saved_at = now;
  if (now - output.saved_at < tables_.options.progress_interval || output.ids.size() == output.saved) return;
  output.saved_at = now;
  output.saved = output.ids.size();
  tables_.store.append(journal::Progress{job.id, job.order, output.ids});
}

void TokenIntake::on(ServiceEntry& from, protocol::Hypotheses message, Instant now) {
  Job* job = worked_on(from, message.term, message.lease, now);
  if (job == nullptr) return;
  const auto fits = [job](const protocol::Hypothesis& hypothesis) {
    return !hypothesis.ids.empty() && hypothesis.ids.size() <= static_cast<size_t>(job->spec().max_new_tokens) &&
           std::ranges::all_of(hypothesis.ids, is_token);
  };
  const size_t count = message.hypotheses.size();
  if (!job->searches_beams() || count < 1 || count > static_cast<size_t>(job->spec().sampling.beam_width) ||
      !std::ranges::all_of(message.hypotheses, fits)) {
    dispatcher_.reject(*job, "the worker sent " + std::to_string(count) + " hypotheses that do not fit", now);
    return;
  }
  job->output().hypotheses = std::move(message.hypotheses);
  for (protocol::Hypothesis& hypothesis : job->output().hypotheses) hypothesis.text.clear();
}

void TokenIntake::on(ServiceEntry& from, const protocol::PromptLogprobs& message, Instant now) {
  Job* job = worked_on(from, message.term, message.lease, now);
  if (job == nullptr) return;
  std::vector<float>& logprobs = job->output().prompt_logprobs;
  const size_t next = logprobs.size() + 1;
  const size_t best = job->spec().prompt_best > 0 ? message.logprobs.size() : 0;
  if (!job->spec().prompt_logprobs || message.start != next ||
      message.logprobs.size() + next > job->prompt().ids.size() || message.best.size() != best) {
    dispatcher_.reject(*job,
                       "prompt log-probabilities from position " + std::to_string(message.start) + " with " +
                           std::to_string(message.best.size()) + " lists of best ids, expected " +
                           std::to_string(next) + " and " + std::to_string(best),
                       now);
    return;
  }
  logprobs.insert(logprobs.end(), message.logprobs.begin(), message.logprobs.end());
  std::vector<std::vector<sampling::TokenLogprob>>& kept = job->output().prompt_best;
  kept.insert(kept.end(), message.best.begin(), message.best.end());
  if (job->only_scores() && !job->lacks_prompt_logprobs()) take_end(*job, sampling::FinishReason::kLength, now);
}

void TokenIntake::on(ServiceEntry& from, const protocol::ConvertProgress& message, Instant now) {
  Job* job = worked_on(from, message.term, message.lease, now);
  if (job == nullptr) return;
  job->output().bytes_done = message.bytes_done;
  job->output().bytes_total = message.bytes_total;
  tables_.streams.touch(*job);
  if (!message.finished) return;
  job->output().text = message.message;
  leases_.release(*job);
  endings_.succeed(*job, message.message, now);
}

}  // namespace optserve::scheduler
