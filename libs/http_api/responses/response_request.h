// `POST /v1/responses` for text: its fields, the object "response" and the events of its stream.
//
// Nothing about a response is kept but its job: its id is "resp_" and the id of the job, and the job's group says that
// it is a response, when it was created and of which model.
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
// Those that completions do not have, or have with another meaning.
const FieldTable& response_own_fields();

// What the object tells of a response beside its job.
struct ResponseFacts {
  std::string model;
  int64_t created = 0;  // seconds since 1970; 0: not known
  bool is_background = false;
  // Of the request, while it is answered; a response that is retrieved does not tell them.
  nlohmann::json request = nlohmann::json::object();
};

struct ResponseRequest {
  CompletionRequest completion;
  ResponseFacts facts;
};
Parsed<ResponseRequest> parse_response(std::string_view body, const Models& models, const RequestContext& context);

// "resp_…" as the id of a job; nullopt if it is none.
std::optional<JobId> job_of_response(std::string_view id);
std::string response_id(const JobId& job);
// What a job's group tells; nullopt if the job is no response.
std::optional<ResponseFacts> facts_of_group(std::string_view group);

// The object, however far the job is.
nlohmann::ordered_json response_json(const ResponseFacts& facts, const protocol::JobResult& result);

// The events of a response, each with its `sequence_number`. Numbers grow, and follow from the bytes of text alone: the
// piece of text that ends at byte n has the number n + 3. So any gateway can go on after the number that a client has.
class ResponseEvents {
 public:
  // Events up to the number `after` are left out.
  ResponseEvents(ResponseFacts facts, JobId job, int64_t after = -1);

  // How many bytes of the text a client has that has the events up to `after`.
  static uint64_t bytes_before(int64_t after);

  std::string begin();
  std::string text(std::string_view piece);
  // With what of the text was not sent before.
  std::string end(const protocol::JobResult& result);
  std::string error(const ApiError& error);

 private:
  std::string event(int64_t number, std::string_view type, nlohmann::ordered_json fields) const;

  ResponseFacts facts_;
  JobId job_;
  int64_t after_;
  uint64_t bytes_ = 0;
};

// As the form of a stream. `job`: the job of the request.
std::unique_ptr<StreamForm> response_form(ResponseFacts facts, const JobId& job);
// The same for a client that comes back.
std::unique_ptr<FollowForm> response_follow_form(ResponseFacts facts, const JobId& job, int64_t after);

}  // namespace optserve::http_api
