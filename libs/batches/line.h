// One line of a batch, and the line that answers it. A line is a request in the form of OpenAI's batch API,
//
//   {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "opt", "prompt": "Once"}}
//
// where the url may also be that of chats or of responses; or a job with the fields of `POST /v1/jobs` and perhaps a
// custom_id: {"prompt": "Once", "max_new_tokens": 8}.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http_api/jobs/caller.h"
#include "http_api/openai/completion_answer.h"
#include "http_api/openai/completion_request.h"
#include "http_api/openai/models.h"
#include "http_api/responses/response_request.h"
#include "protocol/client_messages.h"

namespace optserve::batches {

// What all lines of a run have in common.
struct LineContext {
  const http_api::Models& models;
  std::string run;              // id of the run, with which the keys of its jobs and the ids of its answers begin
  http_api::Caller caller{};    // whose jobs they are
  std::string url{};            // that every line must have; empty: any known one, and jobs too
  std::string default_model{};  // for a line that names none; empty: the only model there is
  int64_t created = 0;          // seconds since 1970, for the answers
  const http_api::ChatTemplate* chat = nullptr;  // of lines that are chats; null: these are refused
};

inline constexpr std::string_view kCompletionsUrl = "/v1/completions", kChatUrl = "/v1/chat/completions",
                                  kResponsesUrl = "/v1/responses";
inline constexpr std::array kRequestUrls = {kCompletionsUrl, kChatUrl, kResponsesUrl};
inline constexpr size_t kLineBytesMax = 4 << 20;  // as large as a request's body
inline constexpr size_t kCustomIdBytesMax = 512;

class Line {
 public:
  // Reads a line. If it is wrong, error() says how.
  Line(std::string_view text, uint64_t number, const LineContext& context);
  // A line that cannot be read as one.
  Line(uint64_t number, const LineContext& context, http_api::ApiError error);

  uint64_t number() const { return number_; }  // counted from 1
  const std::string& custom_id() const { return custom_id_; }
  const std::string& model() const { return jobs_.front().model; }  // needs a line without an error
  const std::optional<http_api::ApiError>& error() const { return error_; }

  // Its jobs, which are valid and have keys. A different attempt has different keys but the same seeds. Needs a line
  // without an error.
  std::vector<protocol::JobSpec> jobs(int attempt) const;

  // The line for the file of answers, with its line feed, from the results of all jobs in their order. Needs a line
  // without an error, and jobs that have succeeded.
  struct Answer {
    std::string text;
    int64_t prompt_tokens = 0, completion_tokens = 0;
  };
  Answer answer(std::vector<protocol::JobResult> results) const;
  // The error of the first job that did not succeed; nullopt if all did.
  std::optional<http_api::ApiError> error_of(const std::vector<protocol::JobResult>& results) const;
  // A line for the file of errors, with its line feed.
  std::string error_line(const http_api::ApiError& error) const;
  // The same for a line that was not run: `code` is batch_expired or batch_cancelled.
  std::string not_run_line(std::string_view code, std::string_view message) const;

 private:
  std::optional<http_api::ApiError> read(std::string_view text, const LineContext& context);
  std::optional<http_api::ApiError> read_request(const nlohmann::json& line, const LineContext& context);
  std::optional<http_api::ApiError> read_body(const nlohmann::json& body, const LineContext& context);
  std::string body_of(const http_api::CompletionAnswer& answer) const;
  std::optional<http_api::ApiError> read_job(nlohmann::json line, const LineContext& context);
  std::string begin_answer() const;

  uint64_t number_;
  std::string id_;  // of the answer: "RUN-NUMBER"
  std::string custom_id_;
  bool is_request_ = true;  // it has the form of OpenAI's batch API
  std::optional<http_api::ApiError> error_;
  std::string url_;  // this and the next two are set for a request
  std::unique_ptr<http_api::CompletionRequest> request_;
  http_api::ResponseFacts response_;  // set for a request to /v1/responses
  std::vector<protocol::JobSpec> jobs_;
};

// What can be said about a request's line without reading its body.
struct LineForm {
  std::string custom_id{}, model{};  // empty: it has none
  std::optional<http_api::ApiError> error{};
};
// `url` is the url that the line must have.
LineForm check_request_line(std::string_view text, std::string_view url);

// The number in a line that answer() or error_line() of this run has made; nullopt if it is no such line.
std::optional<uint64_t> answered_number(std::string_view line, std::string_view run);

}  // namespace optserve::batches
