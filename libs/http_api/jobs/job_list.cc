#include "http_api/jobs/job_list.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>

#include "base/hex.h"
#include "base/input_check.h"
#include "base/limits.h"
#include "job_json/job_json.h"

namespace optserve::http_api {
namespace {

using nlohmann::ordered_json;
using protocol::JobState;

constexpr size_t kCursorBytesMax = 8'192;

template <class T>
bool read_number(std::string_view text, T& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size();
}

// "ORDER ENDPOINT\n" for each scheduler, as hexadecimal digits. Clients pass it back unchanged.
std::string cursor_text(const client::ListPosition& after) {
  std::string lines;
  for (const auto& [endpoint, order] : after) lines += std::to_string(order) + " " + endpoint + "\n";
  return to_hex(std::span(reinterpret_cast<const uint8_t*>(lines.data()), lines.size()));
}

bool read_cursor(std::string_view text, client::ListPosition& after) {
  if (text.empty() || text.size() > kCursorBytesMax || text.size() % 2 != 0) return false;
  std::vector<uint8_t> bytes(text.size() / 2);
  if (!from_hex(text, bytes)) return false;
  std::string_view lines(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (!lines.empty()) {
    const size_t space = lines.find(' '), end = lines.find('\n');
    if (space == std::string_view::npos || end == std::string_view::npos || space > end) return false;
    uint64_t order = 0;
    if (!read_number(lines.substr(0, space), order) || after.size() >= limits::kSchedulersMax) return false;
    after[std::string(lines.substr(space + 1, end - space - 1))] = order;
    lines.remove_prefix(end + 1);
  }
  return true;
}

constexpr std::array kStates = {JobState::kQueued,    JobState::kRunning, JobState::kSucceeded, JobState::kFailed,
                                JobState::kCancelled, JobState::kExpired, JobState::kDead};

// The jobs of one scheduler while pages are made of them.
struct Source {
  const std::string* endpoint;
  const protocol::JobList* list;
  uint64_t from;  // its place in the previous list
  size_t taken = 0;

  bool is_empty() const { return taken == list->jobs.size(); }
  // The source with the least rank has the next job of the page.
  int64_t rank(client::ListOrder order) const {
    if (is_empty()) return std::numeric_limits<int64_t>::max();
    const int64_t accepted_ms = list->jobs[taken].accepted_wall_ms;
    return order == client::ListOrder::kNewestFirst ? -accepted_ms : accepted_ms;
  }
};

std::optional<ApiError> set_field(JobQuery& query, const std::string& name, const std::string& value) {
  if (name == "state") {
    const auto state = std::ranges::find(kStates, std::string_view(value), protocol::job_state_name);
    if (state != kStates.end()) {
      query.filter.state = *state;
      return std::nullopt;
    }
    std::vector<std::string_view> words;
    for (const JobState one : kStates) words.push_back(protocol::job_state_name(one));
    return invalid_value(name, check_choice(name, value, words).refusal().message);
  }
  if (name == "limit") {
    const bool is_right = read_number(value, query.limit) && query.limit >= 1 && query.limit <= limits::kJobsPerListMax;
    if (is_right) return std::nullopt;
    return invalid_value(
        name, "limit is " + found_text(value) + ", expected 1 to " + std::to_string(limits::kJobsPerListMax));
  }
  if (name == "order") {
    query.order = value == "desc" ? client::ListOrder::kNewestFirst : client::ListOrder::kOldestFirst;
    if (value == "asc" || value == "desc") return std::nullopt;
    return invalid_value(name, check_choice(name, value, {"asc", "desc"}).refusal().message);
  }
  if (name == "after") {
    if (read_cursor(value, query.after)) return std::nullopt;
    return invalid_value(name, "after is not the `next` of a page");
  }
  if (name == "tenant" || name == "model" || name == "group") {
    const Status status = check_name(name, value, 0, limits::kGroupBytesMax);
    if (!status.ok()) return invalid_value(name, status.refusal().message);
    if (name == "tenant") query.filter.tenant = value;
    if (name == "model") query.filter.model = value;
    if (name == "group") query.filter.group = value;
    return std::nullopt;
  }
  ApiError error =
      invalid_value(is_name(name) ? name : "", "Unknown field " + found_text(name) +
                                                   ", expected state, model, group, tenant, limit, order or after");
  error.code = "unknown_parameter";
  return error;
}

}  // namespace

Parsed<JobQuery> parse_job_query(const QueryFields& fields, const std::string& tenant) {
  JobQuery query;
  for (const auto& [name, value] : fields) {
    if (auto error = set_field(query, name, value)) return *error;
  }
  if (tenant.empty()) return query;
  if (query.filter.tenant && *query.filter.tenant != tenant) {
    return forbidden("The API key may list the jobs of its own tenant only");
  }
  query.filter.tenant = tenant;
  return query;
}

Parsed<protocol::JobFilter> parse_purge_query(const QueryFields& fields) {
  JobQuery query;
  for (const auto& [name, value] : fields) {
    if (name == "limit" || name == "order" || name == "after") {
      return invalid_value(name, name + " has no meaning here: all ended jobs that match are deleted");
    }
    if (auto error = set_field(query, name, value)) return *error;
  }
  if (query.filter == protocol::JobFilter{}) {
    return invalid_value("", "Expected at least one of state, model, group and tenant: which jobs are to be deleted?");
  }
  if (query.filter.state && !protocol::is_terminal(*query.filter.state)) {
    return invalid_value("state", "state is " + std::string(protocol::job_state_name(*query.filter.state)) +
                                      ", and only jobs that have ended can be deleted");
  }
  return query.filter;
}

std::string list_body(const JobQuery& query, const client::Answers<protocol::JobList>& answers) {
  std::vector<Source> sources;
  client::ListPosition next;
  ordered_json unanswered = ordered_json::array();
  for (const auto& scheduler : answers) {
    const auto before = query.after.find(scheduler.endpoint);
    const uint64_t from = before == query.after.end() ? 0 : before->second;
    if (scheduler.answer.ok()) {
      sources.push_back({&scheduler.endpoint, &scheduler.answer.value(), from});
      continue;
    }
    const Refusal& why = scheduler.answer.refusal();
    unanswered.push_back({{"endpoint", scheduler.endpoint},
                          {"error", std::string(error_code_name(why.code))},
                          {"message", why.message}});
    next[scheduler.endpoint] = from;
  }
  ordered_json jobs = ordered_json::array();
  while (jobs.size() < query.limit) {
    // Within a scheduler the order is its own, by which `next` counts, because its wall clock may have been set back.
    const auto first = std::ranges::min_element(sources, {}, [&](const Source& one) { return one.rank(query.order); });
    if (first == sources.end() || first->is_empty()) break;
    jobs.push_back(job_json::summary_json(first->list->jobs[first->taken++]));
  }
  for (const Source& source : sources) {
    if (source.is_empty() && !source.list->more) continue;
    next[*source.endpoint] = source.taken > 0 ? source.list->jobs[source.taken - 1].order : source.from;
  }
  return job_json::json_text({{"jobs", std::move(jobs)},
                              {"next", next.empty() ? ordered_json() : ordered_json(cursor_text(next))},
                              {"unanswered", std::move(unanswered)}});
}

const FieldTable& queue_control_fields() {
  static const FieldTable kTable{
      {.name = "action", .kind = FieldKind::kString, .help = "pause, drain or resume", .required = true},
      {.name = "model", .kind = FieldKind::kString, .help = "The queue of this model alone"},
      {.name = "service", .kind = FieldKind::kString, .help = "This service alone: its name or instance"}};
  return kTable;
}

Parsed<QueueControl> parse_queue_control(std::string_view body) {
  const Parsed<nlohmann::json> parsed = parse_body(body);
  if (!parsed.ok()) return parsed.error();
  if (auto error = check_fields(parsed.value(), queue_control_fields())) return *error;
  const auto text = [&](std::string_view name) { return find_field<std::string>(parsed.value(), name).value_or(""); };
  const std::string action = text("action");
  if (const Status status = check_choice("action", action, {"pause", "drain", "resume"}); !status.ok()) {
    return invalid_value("action", status.refusal().message);
  }
  QueueControl control;
  control.action = action == "pause"   ? protocol::ControlAction::kPause
                   : action == "drain" ? protocol::ControlAction::kDrain
                                       : protocol::ControlAction::kResume;
  const std::string model = text("model"), service = text("service");
  if (!model.empty() && !service.empty()) return invalid_value("service", "expected a model or a service, found both");
  if (!model.empty()) control = {control.action, protocol::ControlScope::kModel, model};
  if (!service.empty()) control = {control.action, protocol::ControlScope::kService, service};
  return control;
}

}  // namespace optserve::http_api
