// For fuzzers: what must be true of every body that is read as a kind of completion request.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/check.h"
#include "base/utf8.h"
#include "http_api/openai/completion_answer.h"
#include "http_api/openai/completion_stream.h"
#include "http_api/openai/test_models.h"
#include "protocol/validate.h"

namespace optserve::http_api {

inline void check_error(const ApiError& error, const std::string& body) {
  check(error.status >= 400 && error.status < 500, "a mistake of the request");
  check(nlohmann::json::parse(body).contains("error"), "an error that clients can read");
}

// Checks that the jobs of a request are valid. Returns whether there are few enough of them, and a vocabulary, to make
// results.
inline bool check_jobs(const CompletionRequest& request) {
  const std::vector<protocol::JobSpec> jobs = request.jobs();
  check(jobs.size() == request.num_jobs(), "as many jobs as it says");
  for (protocol::JobSpec job : jobs) {
    if (job.key.empty()) job.key = "k";
    check(protocol::validate(job).ok(), "every job is valid");
  }
  return request.model.text != nullptr && jobs.size() <= 16;
}

// `body` and `form` make the answer and the stream of a request. Returns the stream; empty if there are no results.
template <class Body, class Form>
std::string check_completion(const CompletionRequest& request, Body body, Form form) {
  if (!check_jobs(request)) return "";
  const std::vector<protocol::JobSpec> jobs = request.jobs();
  CompletionAnswer answer(request);
  CompletionStream stream(request, form(request));
  std::string frames = stream.on_start();
  for (size_t i = 0; i < jobs.size(); ++i) {
    const protocol::JobResult result = test_result(request, jobs[i], {static_cast<TokenId>(4 + i), 2}, request.model);
    frames += stream.on_text(i, result.text.substr(0, 1));
    frames += stream.on_finished(i, result);
    answer.add(i, result);
  }
  check(stream.is_over() && !stream.has_failed() && frames.ends_with('\n'), "the stream ends");
  check(is_valid_utf8(frames), "a stream is text");
  check(nlohmann::json::parse(body(request, answer)).is_object(), "the answer is an object");
  return frames;
}

}  // namespace optserve::http_api
