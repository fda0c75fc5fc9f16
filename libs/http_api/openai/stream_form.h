// How the pieces of a streamed answer are written: the chunks of OpenAI's completions, and the forms of other APIs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "http_api/openai/api_error.h"
#include "http_api/openai/completion_choice.h"
#include "http_api/openai/completion_request.h"

namespace optserve::http_api {

// A comment that every client skips; sent when nothing else has been sent for a while.
inline constexpr std::string_view kKeepAliveFrame = ": keep-alive\n\n";
inline constexpr std::string_view kDoneFrame = "data: [DONE]\n\n";

// The end of a choice.
struct LastPiece {
  int choice = 0;
  size_t prompt = 0;  // index of its prompt
  std::string text;   // what was not sent before
  const protocol::JobResult& result;
  Output output;
};

struct TokenUsage {
  int64_t prompt_tokens = 0, completion_tokens = 0;
};

// Each function returns what to send, which may be nothing.
class StreamForm {
 public:
  virtual ~StreamForm() = default;
  virtual std::string begin() { return ""; }  // called first, once
  virtual std::string text(int choice, std::string_view text) = 0;
  virtual std::string last(const LastPiece& piece) = 0;
  // After the last piece of every choice; `result` is that of the job that ended last.
  virtual std::string end(const TokenUsage& usage, const protocol::JobResult& result) = 0;
  // Called instead of end(): says why the stream ends early.
  virtual std::string error(const ApiError& error) = 0;
  // The same, if the reason is that a job has failed.
  virtual std::string failed(const ApiError& why, const protocol::JobResult&) { return error(why); }
  virtual std::string_view keep_alive() const { return kKeepAliveFrame; }
};

// What ends a stream that fails, shared by most forms: "event: error\ndata: {…}\n\ndata: [DONE]\n\n".
std::string error_frames(const ApiError& error);

// Chunks, each a "data: {…}\n\n" with `choices`, and [DONE] at the end. `request` outlives this.
class ChunkForm : public StreamForm {
 public:
  ChunkForm(const CompletionRequest& request, std::string_view object);

  std::string end(const TokenUsage& usage, const protocol::JobResult& result) override;
  std::string error(const ApiError& error) override { return error_frames(error); }

 protected:
  const CompletionRequest& request() const { return *request_; }
  // `choice` is the object as JSON. The last chunk of a choice has the fingerprint.
  std::string chunk(std::string_view choice, bool is_last) const;

 private:
  std::string fingerprint() const;  // ,"system_fingerprint":"…", or nothing

  const CompletionRequest* request_;
  std::string frame_begin_;  // up to the choices
};

// `POST /v1/completions`.
std::unique_ptr<StreamForm> completion_form(const CompletionRequest& request);

}  // namespace optserve::http_api
