#include "batches/batch_run.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace optserve::batches {
namespace {

using http_api::ApiError;
using protocol::JobResult;

// Whether the error is due to the state of the queue and says nothing about the line.
bool is_of_queue(ErrorCode code) {
  return code == ErrorCode::kBusy || code == ErrorCode::kUnavailable || code == ErrorCode::kStorageFull;
}

// Whether the same request can succeed later without being changed.
bool passes(ErrorCode code) {
  if (is_of_queue(code)) return true;
  switch (code) {
    case ErrorCode::kDeadlineExceeded:  // the queue was too long for its time
    case ErrorCode::kNotFound:          // a scheduler without a journal has started again
    case ErrorCode::kCancelled:         // the client is shutting down
      return true;
    default:
      return false;
  }
}

}  // namespace

BatchRun::BatchRun(const LineContext& context, const RunLimits& limits, LineReader& reader, OutcomeFiles& files)
    : context_(context), limits_(limits), reader_(reader), files_(files) {}

std::optional<Line> BatchRun::read_line() {
  while (true) {
    std::optional<InputLine> input = reader_.next();
    if (!input) {
      is_at_end_ = true;
      return std::nullopt;
    }
    if (files_.has(input->number)) continue;
    if (input->is_too_long) {
      return Line(input->number, context_, http_api::request_too_large("line", kLineBytesMax));
    }
    return Line(input->text, input->number, context_);
  }
}

BatchRun::Work BatchRun::begin(Attempt attempt) {
  const uint64_t ticket = ++last_ticket_;
  Work work{ticket, attempt.line.jobs(attempt.number)};
  attempt.is_submitted = false;
  attempt.indices.clear();
  attempt.results.assign(work.jobs.size(), std::nullopt);
  attempt.early.clear();
  attempt.missing = work.jobs.size();
  open_jobs_ += work.jobs.size();
  open_.emplace(ticket, std::move(attempt));
  return work;
}

std::optional<BatchRun::Work> BatchRun::next(Instant now) {
  if (given_up_) {
    answer_without_jobs();
    return std::nullopt;
  }
  if (!open_.empty() && open_jobs_ >= limits_.open_jobs_max) return std::nullopt;
  const auto due = std::ranges::find_if(waiting_, [now](const Waiting& one) { return one.until <= now; });
  if (due != waiting_.end()) {
    Attempt attempt = std::move(due->attempt);
    waiting_.erase(due);
    return begin(std::move(attempt));
  }
  // While lines are put off, no others are tried in their place: what stops these would stop the others too.
  if (is_at_end_ || waiting_.size() >= limits_.open_jobs_max) return std::nullopt;
  while (std::optional<Line> line = read_line()) {
    if (!line->error()) return begin(Attempt{std::move(*line)});
    files_.add_error(line->number(), line->error_line(*line->error()));
  }
  return std::nullopt;
}

// After give_up(): the rest of the input is answered with the reason, or left as it is.
void BatchRun::answer_without_jobs() {
  if (given_up_->code.empty()) {
    is_at_end_ = true;
    return;
  }
  constexpr int kLinesAtOnce = 1'000;
  for (int i = 0; i < kLinesAtOnce && !is_at_end_; ++i) {
    if (const std::optional<Line> line = read_line()) {
      files_.add_error(line->number(), line->not_run_line(given_up_->code, given_up_->message));
    }
  }
}

std::optional<Instant> BatchRun::wakes_at() const {
  if (given_up_ || waiting_.empty()) return std::nullopt;
  return std::ranges::min_element(waiting_, {}, &Waiting::until)->until;
}

void BatchRun::on_submitted(uint64_t ticket, const Result<std::vector<protocol::SubmitOutcome>>& outcomes,
                            Instant now) {
  const auto found = open_.find(ticket);
  if (found == open_.end()) return;
  Attempt& attempt = found->second;
  if (!outcomes.ok()) return put_off(ticket, http_api::error_of(outcomes.refusal()), Reason::kQueue, now);
  for (size_t i = 0; i < outcomes.value().size(); ++i) {
    const protocol::SubmitOutcome& outcome = outcomes.value()[i];
    const std::string& model = attempt.line.model();
    if (outcome.job) {
      attempt.indices[*outcome.job].push_back(i);
      unknown_models_.erase(model);
      continue;
    }
    const ApiError why = http_api::error_of(outcome);
    if (outcome.error && passes(*outcome.error)) return put_off(ticket, why, reason_of(*outcome.error), now);
    if (outcome.error == ErrorCode::kUnknownModel) {
      // Workers register a moment after their scheduler has started.
      const Instant since = unknown_models_.try_emplace(model, now).first->second;
      if (now - since < limits_.unknown_model_max) return put_off(ticket, why, Reason::kQueue, now);
    }
    return fail(ticket, why);
  }
  attempt.is_submitted = true;
  for (const JobResult& result : std::exchange(attempt.early, {})) {
    take(ticket, attempt, result, now);
    if (!open_.contains(ticket)) return;
  }
}

void BatchRun::on_finished(uint64_t ticket, const JobResult& result, Instant now) {
  const auto found = open_.find(ticket);
  if (found == open_.end()) return;
  if (!found->second.is_submitted) {
    found->second.early.push_back(result);
  } else {
    take(ticket, found->second, result, now);
  }
}

void BatchRun::take(uint64_t ticket, Attempt& attempt, const JobResult& result, Instant now) {
  const auto indices = attempt.indices.find(result.job);
  if (indices == attempt.indices.end()) return;
  for (const size_t index : std::exchange(indices->second, {})) {
    attempt.results[index] = result;
    --attempt.missing;
  }
  if (attempt.missing == 0) complete(ticket, attempt, now);
}

void BatchRun::complete(uint64_t ticket, Attempt& attempt, Instant now) {
  std::vector<JobResult> results;
  bool has_expired = false;
  for (std::optional<JobResult>& result : attempt.results) {
    has_expired = has_expired || result->state == protocol::JobState::kExpired;
    results.push_back(std::move(*result));
  }
  if (const auto error = attempt.line.error_of(results)) {
    return has_expired ? put_off(ticket, *error, Reason::kExpired, now) : fail(ticket, *error);
  }
  const Line::Answer answer = attempt.line.answer(std::move(results));
  files_.add_answer(attempt.line.number(), answer.text);
  counts_.prompt_tokens += answer.prompt_tokens;
  counts_.completion_tokens += answer.completion_tokens;
  close(ticket);
}

void BatchRun::on_lost(uint64_t ticket, const Refusal& why, Instant now) {
  if (!open_.contains(ticket)) return;
  if (passes(why.code)) return put_off(ticket, http_api::error_of(why), reason_of(why.code), now);
  fail(ticket, http_api::error_of(why));
}

BatchRun::Reason BatchRun::reason_of(ErrorCode code) { return is_of_queue(code) ? Reason::kQueue : Reason::kLine; }

void BatchRun::put_off(uint64_t ticket, const ApiError& why, Reason reason, Instant now) {
  Attempt& open = open_.at(ticket);
  if (reason != Reason::kQueue && ++open.attempts >= limits_.attempts_max) return fail(ticket, why);
  Duration wait = limits_.wait_first;
  for (int i = 0; i < open.put_offs && wait < limits_.wait_max; ++i) wait *= 2;
  ++open.put_offs;
  if (reason == Reason::kExpired) ++open.number;
  Attempt attempt = std::move(open);
  close(ticket);
  last_trouble_ = why.message;
  waiting_.push_back({now + std::min(wait, limits_.wait_max), std::move(attempt)});
}

void BatchRun::fail(uint64_t ticket, const ApiError& why) {
  const Line& line = open_.at(ticket).line;
  files_.add_error(line.number(), line.error_line(why));
  close(ticket);
}

void BatchRun::close(uint64_t ticket) {
  const auto found = open_.find(ticket);
  open_jobs_ -= found->second.results.size();
  open_.erase(found);
}

std::vector<JobId> BatchRun::give_up() { return give_up("", ""); }

std::vector<JobId> BatchRun::give_up(std::string code, std::string message) {
  given_up_ = GivenUp{std::move(code), std::move(message)};
  std::vector<JobId> jobs;
  for (const auto& [ticket, attempt] : open_) {
    for (const auto& [job, indices] : attempt.indices) {
      if (!indices.empty()) jobs.push_back(job);
    }
  }
  const auto leave = [this](const Line& line) {
    if (!given_up_->code.empty()) {
      files_.add_error(line.number(), line.not_run_line(given_up_->code, given_up_->message));
    }
  };
  for (const auto& [ticket, attempt] : open_) leave(attempt.line);
  for (const Waiting& one : waiting_) leave(one.attempt.line);
  open_.clear();
  waiting_.clear();
  open_jobs_ = 0;
  return jobs;
}

BatchRun::Counts BatchRun::counts() const {
  Counts counts = counts_;
  counts.answered = files_.num_answers();
  counts.failed = files_.num_errors();
  counts.open = open_.size();
  counts.put_off = waiting_.size();
  return counts;
}

}  // namespace optserve::batches
