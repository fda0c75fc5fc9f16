// Tokens, text, and the end of a job.
#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "protocol/codec.h"
#include "scheduler/scheduler_service.h"
#include "scheduler/jobs/whole_characters.h"

namespace optserve::scheduler {
namespace {

constexpr size_t kMessageBytesMax = 1'024;  // why a job ended

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

int64_t milliseconds_of(Duration time) { return std::chrono::duration_cast<milliseconds>(time).count(); }

}  // namespace

void SchedulerService::on(ServiceEntry& from, const protocol::Tokens& message, Instant now, Outbox& out) {
  const size_t count = message.leases.size();
  if (Status status = check_lengths(message); !status.ok()) {
    refuse_to(from.peer, 0, status.refusal(), out);
    return;
  }
  note_step(from, now);
  metrics_.tokens.add(static_cast<double>(count));
  const bool saturated = queues_.is_saturated(from);
  int64_t processed = 0;
  for (size_t i = 0; i < count; ++i) {
    Job* job = leased_job(from, message.term, message.leases[i]);
    if (job == nullptr) continue;
    if (message.positions[i] == job->output.size()) processed += take_processed(*job);
    take_token(from, *job, message, i, now);
  }
  queues_.on_processed(from, processed, saturated, now);
}

// Tokens of the job's cost that its next token stands for: the first of an attempt for the prompt as well.
int64_t SchedulerService::take_processed(Job& job) {
  const int64_t processed = std::min(job.unprocessed, std::exchange(job.prompt_share, 0) + job.tokens_each());
  job.unprocessed -= processed;
  return processed;
}

namespace {

// A beam search tells its hypotheses before the last token, and its output is the first of them.
bool fits_hypotheses(const Job& job, TokenId id, protocol::FinishReason reason) {
  if (!job.searches_beams()) return true;
  if (job.hypotheses.empty()) return reason == protocol::FinishReason::kNone;
  const std::vector<TokenId>& best = job.hypotheses.front().ids;
  const size_t position = job.output.size();
  const bool is_last = position + 1 == best.size();
  return position < best.size() && best[position] == id && is_last == (reason != protocol::FinishReason::kNone);
}

}  // namespace

void SchedulerService::take_token(ServiceEntry& from, Job& job, const protocol::Tokens& message, size_t index,
                                  Instant now) {
  const size_t position = message.positions[index];
  if (position < job.output.size()) {
    metrics_.duplicate_tokens.add();
    return;
  }
  const TokenId id = message.tokens[index];
  const auto reason = static_cast<protocol::FinishReason>(message.finished[index]);
  const bool reason_is_valid = reason == protocol::FinishReason::kNone ||
                               reason == protocol::FinishReason::kEndOfText ||
                               reason == protocol::FinishReason::kLength || reason == protocol::FinishReason::kStop;
  const bool last_allowed = position + 1 >= static_cast<size_t>(job.spec.max_new_tokens);
  // They come before the first token; some were lost on their way.
  const bool logprobs_missing = job.spec.prompt_logprobs && job.prompt_logprobs.size() + 1 < job.prompt_ids.size();
  if (position > job.output.size() || logprobs_missing || id < 0 ||
      id >= static_cast<TokenId>(limits::kVocabularyMax) || !reason_is_valid ||
      (job.wants_logprobs() && message.logprobs.empty()) || (last_allowed && reason == protocol::FinishReason::kNone) ||
      !fits_hypotheses(job, id, reason)) {
    log_warn("bad_token", {{"worker", from.info.name},
                           {"position", position},
                           {"expected", job.output.size()},
                           {"id", id},
                           {"finished", static_cast<int>(message.finished[index])}});
    revokes_[{from.peer, term_}].second.push_back(job.lease);
    lose_lease(job,
               "the worker sent a token that does not fit (position " + std::to_string(position) + ", expected " +
                   std::to_string(job.output.size()) + (logprobs_missing ? " after all log-probabilities)" : ")"),
               true, now);
    return;
  }
  job.output.push_back(id);
  if (job.wants_logprobs()) {
    job.logprobs.push_back(message.logprobs[index]);
    job.best.push_back(message.best[index]);
  }
  if (job.first_token_at == Instant{}) {
    job.first_token_at = now;
    metrics_.first_token_seconds.observe(std::chrono::duration<double>(now - job.accepted_at).count());
  }
  if (reason != protocol::FinishReason::kNone) {
    job.finish_reason = reason;
    release(job);
    jobs_.set_stage(job, Stage::kDecoding);
  } else {
    save_progress(job, now);
  }
  decode_more(job);
}

void SchedulerService::save_progress(Job& job, Instant now) {
  if (job.searches_beams()) return;  // without its hypotheses it starts again
  if (job.progress_saved_at == Instant{}) job.progress_saved_at = now;
  if (now - job.progress_saved_at < options_.progress_interval || job.output.size() == job.progress_saved) return;
  job.progress_saved_at = now;
  job.progress_saved = job.output.size();
  store_.append(journal::Progress{job.id, job.order, job.output});
}

void SchedulerService::decode_more(Job& job) {
  const bool last = job.finish_reason != protocol::FinishReason::kNone;
  if (job.searches_beams() && !last) return;  // another search may still take the place of this one
  if (job.decoded < job.ids_with_text() || last) tokenizers_.ask_decode(job);
}

void SchedulerService::on(ServiceEntry& from, protocol::Decoded message, Instant now, Outbox&) {
  for (protocol::DecodedItem& item : message.items) {
    if (Job* job = tokenizers_.take_answer(from, item.ticket, true)) on_decoded(*job, std::move(item), now);
  }
}

void SchedulerService::on_decoded(Job& job, protocol::DecodedItem item, Instant now) {
  if (item.error == ErrorCode::kBusy || item.error == ErrorCode::kUnavailable) {
    ask_again(job, true, now);
    return;
  }
  if (item.error) {
    finish(job, {protocol::JobState::kFailed, protocol::FinishReason::kError, *item.error, item.message}, now);
    return;
  }
  job.question.tries = 0;
  if (job.hypothesis > 0) {
    job.hypotheses[job.hypothesis].text = std::move(item.text);
    complete(job, now);
    return;
  }
  const size_t asked = job.question.ids;
  if (item.stop >= 0 && asked > 1) {
    job.stop_within = asked;  // which of the ids completed it? Asks again for the first half
    tokenizers_.ask_decode(job);
    return;
  }
  job.text += item.text;
  job.decode_state = std::move(item.state);
  job.decoded += asked;
  bounds_.update(job);
  if (!item.text.empty()) streams_.touch(job);
  if (item.stop >= 0) {
    job.output.resize(job.decoded);
    if (job.wants_logprobs()) job.logprobs.resize(job.decoded), job.best.resize(job.decoded);
    job.finish_reason = protocol::FinishReason::kStop;
    complete(job, now);
    return;
  }
  if (job.stop_within > 0) job.stop_within -= asked;
  if (job.question.flush) {
    complete(job, now);
    return;
  }
  decode_more(job);
}

// Ends a job whose text is complete, once its other hypotheses have theirs.
void SchedulerService::complete(Job& job, Instant now) {
  if (job.hypothesis == 0 && !job.hypotheses.empty()) {
    protocol::Hypothesis& best = job.hypotheses.front();
    best.text = job.text, best.ids = job.output, best.finish_reason = job.finish_reason;  // a stop string may cut it
  }
  if (job.hypothesis + 1 < job.hypotheses.size()) {
    ++job.hypothesis;
    tokenizers_.ask_decode(job);
    return;
  }
  finish(job, {protocol::JobState::kSucceeded, job.finish_reason, std::nullopt, ""}, now);
}

void SchedulerService::on(ServiceEntry& from, protocol::Hypotheses message, Instant now, Outbox&) {
  Job* job = leased_job(from, message.term, message.lease);
  if (job == nullptr) return;
  note_step(from, now);
  const auto fits = [job](const protocol::Hypothesis& hypothesis) {
    return !hypothesis.ids.empty() && hypothesis.ids.size() <= static_cast<size_t>(job->spec.max_new_tokens) &&
           std::ranges::all_of(hypothesis.ids,
                               [](TokenId id) { return id >= 0 && id < static_cast<TokenId>(limits::kVocabularyMax); });
  };
  const size_t count = message.hypotheses.size();
  if (!job->searches_beams() || count < 1 || count > static_cast<size_t>(job->spec.sampling.beam_width) ||
      !std::ranges::all_of(message.hypotheses, fits)) {
    revokes_[{from.peer, term_}].second.push_back(job->lease);
    lose_lease(*job, "the worker sent " + std::to_string(count) + " hypotheses that do not fit", true, now);
    return;
  }
  job->hypotheses = std::move(message.hypotheses);
  for (protocol::Hypothesis& hypothesis : job->hypotheses) hypothesis.text.clear();
}

void SchedulerService::on(ServiceEntry& from, const protocol::PromptLogprobs& message, Instant now, Outbox&) {
  Job* job = leased_job(from, message.term, message.lease);
  if (job == nullptr) return;
  note_step(from, now);
  const size_t next = job->prompt_logprobs.size() + 1;
  if (!job->spec.prompt_logprobs || message.start != next || message.logprobs.size() + next > job->prompt_ids.size()) {
    revokes_[{from.peer, term_}].second.push_back(job->lease);
    lose_lease(*job,
               "prompt log-probabilities from position " + std::to_string(message.start) + ", expected " +
                   std::to_string(next),
               true, now);
    return;
  }
  job->prompt_logprobs.insert(job->prompt_logprobs.end(), message.logprobs.begin(), message.logprobs.end());
  if (!job->only_scores() || job->prompt_logprobs.size() + 1 < job->prompt_ids.size()) return;
  job->finish_reason = protocol::FinishReason::kLength;
  release(*job);
  jobs_.set_stage(*job, Stage::kDecoding);
  decode_more(*job);
}

void SchedulerService::on(ServiceEntry& from, const protocol::ConvertProgress& message, Instant now, Outbox&) {
  Job* job = leased_job(from, message.term, message.lease);
  if (job == nullptr) return;
  note_step(from, now);
  job->progress_done = message.bytes_done;
  job->progress_total = message.bytes_total;
  streams_.touch(*job);
  if (!message.finished) return;
  job->text = message.message;
  release(*job);
  finish(*job, {protocol::JobState::kSucceeded, protocol::FinishReason::kNone, std::nullopt, message.message}, now);
}

void SchedulerService::finish(Job& job, End end, Instant now) {
  revoke(job);
  tokenizers_.drop(job);
  leave_queues(job);
  auto result = std::make_shared<protocol::JobResult>(describe(job));
  result->state = end.state;
  result->finish_reason = end.reason;
  result->error = end.error;
  result->message = whole_characters(end.message, kMessageBytesMax);
  result->timings.total_ms = std::chrono::duration_cast<milliseconds>(now - job.accepted_at).count();
  if (job.leased_at != Instant{}) {
    result->timings.run_ms = std::chrono::duration_cast<milliseconds>(now - job.leased_at).count();
  }
  const int64_t kept_ms = end.state == protocol::JobState::kDead
                              ? std::max(job.spec.result_ttl_ms, milliseconds_of(options_.dead_ttl))
                              : job.spec.result_ttl_ms;
  const int64_t expires = wall_ms(now) + kept_ms;
  const uint64_t sequence = store_.append(finished_record(job, *result, expires));
  recent_.add(result, sequence, expires);
  note_ended(job, end.state, sequence, expires);
  streams_.finish(job, result, sequence);
  if (result->state == protocol::JobState::kSucceeded && job.is_generation()) {
    job.queue->load.learn_job(
        static_cast<int64_t>(job.prompt_ids.size()) + job.tokens_each() * static_cast<int64_t>(job.output.size()),
        job.cost);
  }
  observe(job, *result, now);
  jobs_.end(job);
}

journal::Finished SchedulerService::finished_record(const Job& job, const protocol::JobResult& result,
                                                    int64_t expires_wall_ms) const {
  journal::Finished record;
  record.order = job.order;
  const bool is_work = result.state == protocol::JobState::kSucceeded || result.state == protocol::JobState::kFailed;
  if (is_work && job.last_lease != 0) record.token = {term_, job.last_lease};
  record.expires_wall_ms = expires_wall_ms;
  record.accepted_wall_ms = job.accepted_wall_ms;
  record.tenant = job.spec.tenant;
  record.model = job.spec.model;
  record.payload_sha256 = job.payload_sha256;
  record.result = result;
  if (result.state == protocol::JobState::kDead) record.encoded_spec = protocol::encode_job_spec(job.spec);
  return record;
}

void SchedulerService::note_open(Job& job) {
  keys_.add(job.spec.tenant, job.spec.key, {job.id, job.payload_sha256, job.spec.group, job.accepted_sequence});
  groups_.opened(job);
  lister_.opened(job);
  forget_group_members();
}

void SchedulerService::note_ended(Job& job, protocol::JobState state, uint64_t sequence, int64_t expires_wall_ms) {
  const protocol::JobSpec& spec = job.spec;
  if (keys_.end(spec.tenant, spec.key, job.id, state, expires_wall_ms)) {
    groups_.ended(spec.tenant, spec.group, state);
  }
  groups_.closed(job, sequence);
  lister_.closed(job);
}

void SchedulerService::forget_group_members() {
  for (const auto& [tenant, group, state] : keys_.take_forgotten()) groups_.forgotten(tenant, group, state);
}

void SchedulerService::observe(const Job& job, const protocol::JobResult& result, Instant now) {
  metrics_.ended[static_cast<size_t>(result.state)].add();
  metrics_.total_seconds.observe(std::chrono::duration<double>(now - job.accepted_at).count());
  ++(result.state == protocol::JobState::kSucceeded ? finished_count_ : failed_count_);
  if (result.state == protocol::JobState::kDead || result.state == protocol::JobState::kFailed) {
    log_warn("job_failed", {{"job", job.id.hex()},
                            {"state", protocol::job_state_name(result.state)},
                            {"code", result.error ? error_code_name(*result.error) : ""},
                            {"attempts", result.attempts},
                            {"message", result.message}});
  }
}

}  // namespace optserve::scheduler
