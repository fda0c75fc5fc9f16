#include "http_api/openai/completion_stream.h"

#include <algorithm>

#include "base/check.h"
#include "base/utf8.h"
#include "http_api/openai/completion_choice.h"

namespace optserve::http_api {

using protocol::JobResult;

CompletionStream::CompletionStream(const CompletionRequest& request, std::unique_ptr<StreamForm> form)
    : request_(&request), form_(std::move(form)), sent_(request.num_jobs()), missing_(sent_.size()) {}

bool CompletionStream::sends_at_end() const { return request_->logprobs || request_->job.sampling.is_beam_search(); }

int CompletionStream::first_choice(size_t job) const {
  return static_cast<int>(job) * (request_->is_shared() ? request_->n : 1);
}

// Frames with the same text for every choice of the job.
std::string CompletionStream::text_frames(size_t job, std::string_view text) const {
  std::string frames;
  const int count = request_->is_shared() ? request_->n : 1;
  for (int i = 0; i < count; ++i) frames += form_->text(first_choice(job) + i, text);
  return frames;
}

std::string CompletionStream::on_start() {
  std::string frames = form_->begin();
  if (!request_->echo || sends_at_end()) return frames;
  for (size_t job = 0; job < sent_.size(); ++job) {
    const std::string& prompt = prompt_of(job).text;
    if (!prompt.empty()) frames += text_frames(job, prompt);
  }
  return frames;
}

const Prompt& CompletionStream::prompt_of(size_t job) const {
  return request_->prompts[job / static_cast<size_t>(request_->jobs_per_prompt())];
}

std::string CompletionStream::on_text(size_t job, std::string_view piece) {
  if (is_over_ || sends_at_end() || sent_[job].is_finished) return "";
  Sent& sent = sent_[job];
  sent.incomplete += piece;
  std::string text = std::move(sent.incomplete);
  const size_t whole = valid_utf8_prefix(text);
  // Bytes that begin a character wait for the rest of it; bytes that can never become a character are sent (and
  // replaced).
  const bool waits = is_incomplete_utf8(std::string_view(text).substr(whole));
  sent.incomplete = waits ? text.substr(whole) : std::string();
  if (waits) text.resize(whole);
  if (text.empty()) return "";
  sent.bytes += text.size();
  sent.digest = protocol::text_digest(text, sent.digest);
  return text_frames(job, text);
}

std::string CompletionStream::on_restarted(size_t job) {
  if (is_over_ || sent_[job].is_finished) return "";
  if (sent_[job].bytes == 0) {
    sent_[job].incomplete.clear();
    return "";
  }
  ApiError error = internal_error(
      "The job was computed again after a restart, and its text differs from what this stream has already sent. Its "
      "result can be fetched.");
  error.code = "stream_restarted";
  error.should_retry = false;
  return on_error(error);
}

std::string CompletionStream::on_finished(size_t job, const JobResult& result) {
  if (is_over_ || sent_[job].is_finished) return "";
  if (const auto error = error_of(result, request_->model.context)) {
    is_over_ = has_failed_ = true;
    return form_->failed(*error, result);
  }
  Sent& sent = sent_[job];
  const std::string_view text = result.text;
  const bool continues = sent.bytes <= text.size() &&
                         protocol::text_digest(text.substr(0, static_cast<size_t>(sent.bytes))) == sent.digest;
  if (!continues) return on_restarted(job);
  sent.is_finished = true;
  --missing_;
  // Every prompt is counted once, however many choices it has.
  if (job % static_cast<size_t>(request_->jobs_per_prompt()) == 0) usage_.prompt_tokens += result.prompt_tokens;
  std::string frames = last_frames(job, result);
  if (missing_ == 0) {
    is_over_ = true;
    frames += form_->end(usage_, result);
  }
  return frames;
}

// The rest of the text of each choice, with everything else that is now known.
std::string CompletionStream::last_frames(size_t job, const JobResult& result) {
  const size_t prompt = job / static_cast<size_t>(request_->jobs_per_prompt());
  const std::string echo = request_->echo && sends_at_end() ? request_->prompts[prompt].text : "";
  std::string frames;
  for (int i = 0; i < count_outputs(*request_, result); ++i) {
    const Output output = output_of(*request_, result, i);
    usage_.completion_tokens += static_cast<int64_t>(output.ids.size());
    frames += form_->last({.choice = first_choice(job) + i,
                           .prompt = prompt,
                           .text = echo + std::string(output.text.substr(static_cast<size_t>(sent_[job].bytes))),
                           .result = result,
                           .output = output});
  }
  return frames;
}

std::string CompletionStream::on_lost(size_t job, const Refusal& why) {
  if (is_over_ || sent_[job].is_finished) return "";
  return on_error(error_of(why, 0, request_->model.context));
}

std::string CompletionStream::on_error(const ApiError& error) {
  if (is_over_) return "";
  is_over_ = true;
  has_failed_ = true;
  return form_->error(error);
}

}  // namespace optserve::http_api
