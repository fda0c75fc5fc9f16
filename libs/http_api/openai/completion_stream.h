// The frames of server-sent events that answer `POST /v1/completions` with `stream`.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "http_api/openai/completion_request.h"
#include "protocol/client_messages.h"

namespace optserve::http_api {

// A comment that every client skips; sent where nothing else is for a while.
inline constexpr std::string_view kKeepAliveFrame = ": keep-alive\n\n";

// Each function returns what is to be sent now: no frame, or some, each "data: {…}\n\n". `job` is the index in
// request.jobs(). The texts of a choice's frames together are the text of the answer that is not streamed. With
// log-probabilities, and in a beam search, a choice's text comes in one frame when its job ends.
//
// A job that fails or is lost ends the stream: an error frame, then [DONE]. The caller then cancels the other jobs.
class CompletionStream {
 public:
  explicit CompletionStream(const CompletionRequest& request);  // `request` outlives this

  std::string on_start();  // before all others, once: the echo
  std::string on_text(size_t job, std::string_view piece);
  // The job's text begins again. If some was sent already, that is an error of the stream: it cannot be taken back.
  std::string on_restarted(size_t job);
  std::string on_finished(size_t job, const protocol::JobResult& result);
  std::string on_lost(size_t job, const Refusal& why);
  // Ends the stream with an error of the gateway itself.
  std::string on_error(const ApiError& error);

  // [DONE] was returned: nothing may be sent after it, and the functions above return nothing.
  bool is_over() const { return is_over_; }
  bool has_failed() const { return has_failed_; }

 private:
  // What was sent of one job.
  struct Sent {
    uint64_t bytes = 0;
    uint64_t digest = protocol::kDigestOfNothing;  // protocol::text_digest of them
    std::string incomplete{};                      // bytes of a character that came in pieces
    bool is_finished = false;
  };
  struct Usage {
    int64_t prompt_tokens = 0, completion_tokens = 0;
  };

  bool sends_at_end() const;
  int first_choice(size_t job) const;
  const Prompt& prompt_of(size_t job) const;
  std::string text_frame(int choice, std::string_view text) const;
  std::string text_frames(size_t job, std::string_view text) const;
  std::string last_frames(size_t job, const protocol::JobResult& result);
  std::string fingerprint() const;  // ,"system_fingerprint":"…", or nothing
  std::string end(const protocol::JobResult& last);

  const CompletionRequest* request_;
  std::string frame_begin_;  // up to the index of the choice
  std::vector<Sent> sent_;   // by job
  size_t missing_;
  Usage usage_;
  bool is_over_ = false;
  bool has_failed_ = false;
};

// What ends a stream that fails, shared by other streams of the gateway: "event: error\ndata: {…}\n\ndata: [DONE]\n\n".
std::string error_frames(const ApiError& error);

}  // namespace optserve::http_api
