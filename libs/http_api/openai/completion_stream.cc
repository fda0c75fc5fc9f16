#include "http_api/openai/completion_stream.h"

#include <algorithm>

#include "base/check.h"
#include "base/utf8.h"
#include "http_api/openai/completion_choice.h"
#include "http_api/openai/json_text.h"

namespace optserve::http_api {
namespace {

using nlohmann::ordered_json;
using protocol::JobResult;

constexpr std::string_view kDoneFrame = "data: [DONE]\n\n";

}  // namespace

std::string error_frames(const ApiError& error) {
  return "event: error\ndata: " + error_body(error) + "\n\n" + std::string(kDoneFrame);
}

CompletionStream::CompletionStream(const CompletionRequest& request)
    : request_(&request), sent_(request.num_jobs()), missing_(sent_.size()) {
  frame_begin_ = "data: {\"id\":" + json_string(request.id) + R"(,"object":"text_completion","created":)" +
                 std::to_string(request.created) + ",\"model\":" + json_string(request.model.name) + ",\"choices\":[";
}

bool CompletionStream::sends_at_end() const { return request_->logprobs || request_->job.sampling.is_beam_search(); }

int CompletionStream::first_choice(size_t job) const {
  return static_cast<int>(job) * (request_->is_shared() ? request_->n : 1);
}

std::string CompletionStream::text_frame(int choice, std::string_view text) const {
  return frame_begin_ + "{\"index\":" + std::to_string(choice) + ",\"text\":" + json_string(text) +
         ",\"logprobs\":null,\"finish_reason\":null}]}\n\n";
}

// The same text for every choice of the job.
std::string CompletionStream::text_frames(size_t job, std::string_view text) const {
  std::string frames;
  const int count = request_->is_shared() ? request_->n : 1;
  for (int i = 0; i < count; ++i) frames += text_frame(first_choice(job) + i, text);
  return frames;
}

std::string CompletionStream::on_start() {
  std::string frames;
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
  // Bytes that begin a character wait for the rest of it; others, which never become one, are sent (and replaced).
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
  if (auto error = error_of(result, request_->model.context)) return on_error(*error);
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
  if (missing_ == 0) frames += end(result);
  return frames;
}

// The rest of the text of each choice, with all else that is known now.
std::string CompletionStream::last_frames(size_t job, const JobResult& result) {
  const size_t prompt = job / static_cast<size_t>(request_->jobs_per_prompt());
  const std::string echo = request_->echo && sends_at_end() ? request_->prompts[prompt].text : "";
  std::string frames;
  for (int i = 0; i < count_outputs(*request_, result); ++i) {
    const Output output = output_of(*request_, result, i);
    usage_.completion_tokens += static_cast<int64_t>(output.ids.size());
    ordered_json choice{{"index", first_choice(job) + i},
                        {"text", echo + std::string(output.text.substr(static_cast<size_t>(sent_[job].bytes)))}};
    choice.update(choice_facts(*request_, prompt, result, output));
    frames += frame_begin_ + json_text(choice) + "]" + fingerprint() + "}\n\n";
  }
  return frames;
}

std::string CompletionStream::fingerprint() const {
  const std::string& fingerprint = request_->model.fingerprint;
  return fingerprint.empty() ? "" : ",\"system_fingerprint\":" + json_string(fingerprint);
}

std::string CompletionStream::end(const JobResult& last) {
  is_over_ = true;
  std::string frames;
  if (request_->include_usage) {
    frames += frame_begin_ + "],\"usage\":" + json_text(usage_json(usage_.prompt_tokens, usage_.completion_tokens));
    if (request_->return_metrics && sent_.size() == 1) frames += ",\"metrics\":" + json_text(metrics_json(last));
    frames += fingerprint() + "}\n\n";
  }
  return frames + std::string(kDoneFrame);
}

std::string CompletionStream::on_lost(size_t job, const Refusal& why) {
  if (is_over_ || sent_[job].is_finished) return "";
  return on_error(error_of(why, 0, request_->model.context));
}

std::string CompletionStream::on_error(const ApiError& error) {
  if (is_over_) return "";
  is_over_ = true;
  has_failed_ = true;
  return error_frames(error);
}

}  // namespace optserve::http_api
