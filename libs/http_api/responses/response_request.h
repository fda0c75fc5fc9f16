// `POST /v1/responses` for text: its fields, the object "response" and the events of its stream.
//
// Nothing is kept of a response but its job: its id is "resp_" and the id of the job, and the job's group says that it
// is a response, when it was created and for which model.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "http_api/jobs/job_events.h"
#include "http_api/openai/completion_request.h"
#include "http_api/openai/request_fields.h"
#include "http_api/openai/stream_form.h"

namespace optserve::http_api {

const FieldTable& response_fields();
// The fields that completions do not have, or that mean something else there.
const FieldTable& response_own_fields();

// What the object says about a response besides its job.
struct ResponseFacts {
  std::string model;
  int64_t created = 0;  // seconds since 1970; 0: not known
  bool is_background = false;
  // Fields of the request, for its own answer; a response that is retrieved later does not have them.
  nlohmann::json request = nlohmann::json::object();
};

struct ResponseRequest {
  CompletionRequest completion;
  ResponseFacts facts;
};
Parsed<ResponseRequest> parse_response(std::string_view body, const Models& models, const RequestContext& context);

// The job of "resp_…"; nullopt if it is not the id of a response.
std::optional<JobId> job_of_response(std::string_view id);
std::string response_id(const JobId& job);
// What a job's group says; nullopt if the job is not a response.
std::optional<ResponseFacts> facts_of_group(std::string_view group);

// The object, at any stage of the job.
nlohmann::ordered_json response_json(const ResponseFacts& facts, const protocol::JobResult& result);

// The events of a response, each with its `sequence_number`. Numbers grow and depend only on the bytes of text: the
// piece of text that ends at byte n has the number n + 3. So any gateway can continue after the last number that a
// client has.
class ResponseEvents {
 public:
  // Events up to the number `after` are left out.
  ResponseEvents(ResponseFacts facts, JobId job, int64_t after = -1);

  // How many bytes of the text a client with the events up to `after` has.
  static uint64_t bytes_before(int64_t after);

  std::string begin();
  std::string text(std::string_view piece);
  // Includes the rest of the text that was not sent before.
  std::string end(const protocol::JobResult& result);
  std::string error(const ApiError& error);

 private:
  std::string event(int64_t number, std::string_view type, nlohmann::ordered_json fields) const;

  ResponseFacts facts_;
  JobId job_;
  int64_t after_;
  uint64_t bytes_ = 0;
};

// The events as the form of a stream. `job` is the job of the request.
std::unique_ptr<StreamForm> response_form(ResponseFacts facts, const JobId& job);
// The same for a client that reconnects.
std::unique_ptr<FollowForm> response_follow_form(ResponseFacts facts, const JobId& job, int64_t after);

}  // namespace optserve::http_api
