// `GET /v1/jobs` with its filters, page by page, and `POST /v1/queue`.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/client.h"
#include "http_api/openai/api_error.h"
#include "http_api/openai/request_fields.h"
#include "protocol/operator_messages.h"

namespace optserve::http_api {

// The fields of a URL's query, decoded.
using QueryFields = std::vector<std::pair<std::string, std::string>>;

struct JobQuery {
  protocol::JobFilter filter;
  uint32_t limit = 100;        // jobs of the page; each scheduler is asked for as many
  client::ListPosition after;  // where each scheduler continues; empty for the first page
  client::ListOrder order = client::ListOrder::kOldestFirst;
};

// state, model, group, tenant, limit (1 to 1000), order (asc or desc) and after, the `next` of the page before.
// `tenant` is that of the API key, and only its jobs are listed; empty if all tenants may be seen.
Parsed<JobQuery> parse_job_query(const QueryFields& fields, const std::string& tenant);

// DELETE /v1/jobs: state, model, group and tenant, at least one of them.
Parsed<protocol::JobFilter> parse_purge_query(const QueryFields& fields);

// {"jobs": […], "next": text or null, "unanswered": […]}: the first `limit` jobs of all answers in the order of their
// acceptance. `next` continues after them and is null at the end. Schedulers that did not answer are named, and their
// place in `next` does not change.
std::string list_body(const JobQuery& query, const client::Answers<protocol::JobList>& answers);

struct QueueControl {
  protocol::ControlAction action = protocol::ControlAction::kPause;
  protocol::ControlScope scope = protocol::ControlScope::kQueue;
  std::string name{};
};
// POST /v1/queue: {"action": "pause" | "drain" | "resume", "model": name, "service": name}; without a name it applies
// to the whole queue.
const FieldTable& queue_control_fields();
Parsed<QueueControl> parse_queue_control(std::string_view body);

}  // namespace optserve::http_api
