// A streamed answer: decides which piece of which job is sent when, and in which form.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "http_api/openai/completion_request.h"
#include "http_api/openai/stream_form.h"
#include "protocol/client_messages.h"

namespace optserve::http_api {

// Each function returns the frames to send now, which may be none. `job` is the index in request.jobs(). The texts of a
// choice's frames together are the text of the answer that is not streamed. With log-probabilities, and in a beam
// search, a choice's text comes in one frame when its job ends.
//
// A job that fails or is lost ends the stream with the error of the form. The caller then cancels the other jobs.
class CompletionStream {
 public:
  // `request` outlives this.
  explicit CompletionStream(const CompletionRequest& request) : CompletionStream(request, completion_form(request)) {}
  CompletionStream(const CompletionRequest& request, std::unique_ptr<StreamForm> form);

  std::string on_start();  // called first, once: the beginning of the form, and the echo
  std::string on_text(size_t job, std::string_view piece);
  // The job's text begins again. If some of it was already sent, the stream ends with an error, since that cannot be
  // taken back.
  std::string on_restarted(size_t job);
  std::string on_finished(size_t job, const protocol::JobResult& result);
  std::string on_lost(size_t job, const Refusal& why);
  // Ends the stream with an error of the gateway itself.
  std::string on_error(const ApiError& error);

  std::string_view keep_alive() const { return form_->keep_alive(); }

  // True when the end was returned: nothing may be sent after it, and the functions above return nothing.
  bool is_over() const { return is_over_; }
  bool has_failed() const { return has_failed_; }

 private:
  // What has been sent of one job.
  struct Sent {
    uint64_t bytes = 0;
    uint64_t digest = protocol::kDigestOfNothing;  // protocol::text_digest of them
    std::string incomplete{};                      // bytes of a character that came in pieces
    bool is_finished = false;
  };
  bool sends_at_end() const;
  int first_choice(size_t job) const;
  const Prompt& prompt_of(size_t job) const;
  std::string text_frames(size_t job, std::string_view text) const;
  std::string last_frames(size_t job, const protocol::JobResult& result);

  const CompletionRequest* request_;
  std::unique_ptr<StreamForm> form_;
  std::vector<Sent> sent_;  // by job
  size_t missing_;
  TokenUsage usage_;
  bool is_over_ = false;
  bool has_failed_ = false;
};

}  // namespace optserve::http_api
