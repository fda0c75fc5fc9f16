#include "gateway/batches/batch_state.h"

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/input_check.h"
#include "batches/line.h"
#include "http_api/openai/json_text.h"
#include "http_api/openai/request_fields.h"

namespace optserve::gateway {
namespace {

using http_api::ApiError;
using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::array<std::string_view, 8> kStatusNames = {"validating", "failed",  "in_progress", "finalizing",
                                                          "completed",  "expired", "cancelling",  "cancelled"};
constexpr int64_t kWindowHoursMax = 168;
constexpr size_t kMetadataMax = 16, kMetadataKeyBytes = 64, kMetadataValueBytes = 512;
constexpr int64_t kOutputSecondsMin = 3'600, kOutputSecondsMax = 2'592'000;

const http_api::FieldTable& batch_fields() {
  using http_api::FieldKind;
  static const http_api::FieldTable fields = {
      {.name = "input_file_id", .kind = FieldKind::kString, .min = 1, .max = 64, .required = true},
      {.name = "endpoint", .kind = FieldKind::kString, .min = 1, .max = 64, .required = true},
      {.name = "completion_window", .kind = FieldKind::kString, .min = 1, .max = 8, .required = true},
      {.name = "metadata", .kind = FieldKind::kAny},
      {.name = "output_expires_after", .kind = FieldKind::kAny},
  };
  return fields;
}

// Visits the times and the texts that are stored under their own names.
template <class State, class F>
void for_each_time(State& state, F&& f) {
  f("created_at", state.created_at);
  f("in_progress_at", state.in_progress_at);
  f("expires_at", state.expires_at);
  f("finalizing_at", state.finalizing_at);
  f("completed_at", state.completed_at);
  f("failed_at", state.failed_at);
  f("expired_at", state.expired_at);
  f("cancelling_at", state.cancelling_at);
  f("cancelled_at", state.cancelled_at);
}

ordered_json errors_json(const BatchState& state) {
  ordered_json data = ordered_json::array();
  for (const BatchState::LineError& error : state.errors) {
    data.push_back({{"code", error.code},
                    {"line", error.line == 0 ? ordered_json() : ordered_json(error.line)},
                    {"message", error.message},
                    {"param", error.param.empty() ? ordered_json() : ordered_json(error.param)}});
  }
  return {{"object", "list"}, {"data", data}};
}

ordered_json metadata_json(const BatchState& state) {
  ordered_json metadata = ordered_json::object();
  for (const auto& [name, value] : state.metadata) metadata[name] = value;
  return metadata;
}

ordered_json text_or_null(const std::string& text) { return text.empty() ? ordered_json() : ordered_json(text); }

std::optional<ApiError> read_metadata(const json& value, BatchState& state) {
  const auto wrong = [](std::string message) { return http_api::invalid_value("metadata", std::move(message)); };
  if (value.is_null()) return std::nullopt;
  if (!value.is_object() || value.size() > kMetadataMax) {
    return wrong("metadata is not an object of at most " + std::to_string(kMetadataMax) + " texts");
  }
  for (const auto& [name, text] : value.items()) {
    if (!text.is_string() || name.size() > kMetadataKeyBytes ||
        text.get_ref<const std::string&>().size() > kMetadataValueBytes) {
      return wrong("metadata." + found_text(name) + " is not a text of at most " + std::to_string(kMetadataValueBytes) +
                   " bytes under a name of at most " + std::to_string(kMetadataKeyBytes));
    }
    state.metadata.emplace_back(name, text.get<std::string>());
  }
  return std::nullopt;
}

std::optional<ApiError> read_output_expiry(const json& value, BatchState& state) {
  if (value.is_null()) return std::nullopt;
  const bool is_form = value.is_object() && value.value("anchor", json()) == "created_at" &&
                       value.contains("seconds") && value.at("seconds").is_number_integer();
  const int64_t wanted = is_form ? value.at("seconds").get<int64_t>() : 0;
  if (wanted < kOutputSecondsMin || wanted > kOutputSecondsMax) {
    return http_api::invalid_value(
        "output_expires_after",
        "output_expires_after is not {\"anchor\": \"created_at\", \"seconds\": " + std::to_string(kOutputSecondsMin) +
            " to " + std::to_string(kOutputSecondsMax) + "}");
  }
  state.output_expires_seconds = wanted;
  return std::nullopt;
}

}  // namespace

std::string_view batch_status_name(BatchStatus status) { return kStatusNames.at(static_cast<size_t>(status)); }

bool is_ended(BatchStatus status) {
  return status == BatchStatus::kFailed || status == BatchStatus::kCompleted || status == BatchStatus::kExpired ||
         status == BatchStatus::kCancelled;
}

int64_t ended_at(const BatchState& state) {
  if (!is_ended(state.status)) return 0;
  return std::max({state.completed_at, state.failed_at, state.expired_at, state.cancelled_at});
}

std::optional<int64_t> window_seconds(std::string_view text) {
  int64_t hours = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), hours);
  const std::string_view rest(end, static_cast<size_t>(text.data() + text.size() - end));
  if (error != std::errc() || rest != "h" || hours < 1 || hours > kWindowHoursMax) return std::nullopt;
  return hours * 3'600;
}

http_api::Parsed<BatchState> parse_batch(std::string_view body) {
  const http_api::Parsed<json> parsed = http_api::parse_body(body);
  if (!parsed.ok()) return parsed.error();
  const json& root = parsed.value();
  if (auto error = http_api::check_fields(root, batch_fields())) return *error;
  BatchState state;
  state.input_file_id = root.at("input_file_id");
  state.endpoint = root.at("endpoint");
  state.completion_window = root.at("completion_window");
  if (const Status status = check_choice("endpoint", state.endpoint, batches::kRequestUrls); !status.ok()) {
    return http_api::invalid_value("endpoint", status.refusal().message);
  }
  if (!window_seconds(state.completion_window)) {
    return http_api::invalid_value("completion_window", "completion_window is " + found_text(state.completion_window) +
                                                            ", expected 1h to " + std::to_string(kWindowHoursMax) +
                                                            "h, usually 24h");
  }
  if (auto error = read_metadata(root.value("metadata", json()), state)) return *error;
  if (auto error = read_output_expiry(root.value("output_expires_after", json()), state)) return *error;
  return state;
}

std::string state_text(const BatchState& state) {
  ordered_json stored = {{"id", state.id},
                         {"tenant", state.tenant},
                         {"endpoint", state.endpoint},
                         {"input_file_id", state.input_file_id},
                         {"completion_window", state.completion_window},
                         {"status", batch_status_name(state.status)},
                         {"metadata", metadata_json(state)},
                         {"output_expires_seconds", state.output_expires_seconds},
                         {"model", state.model},
                         {"output_file_id", state.output_file_id},
                         {"error_file_id", state.error_file_id},
                         {"total", state.total},
                         {"completed", state.completed},
                         {"failed", state.failed},
                         {"input_tokens", state.input_tokens},
                         {"output_tokens", state.output_tokens},
                         {"errors", errors_json(state).at("data")}};
  for_each_time(state, [&stored](const char* name, int64_t value) { stored[name] = value; });
  return http_api::json_text(stored) + "\n";
}

std::optional<BatchState> parse_state(std::string_view text) {
  const json stored = json::parse(text, nullptr, false);
  if (!stored.is_object()) return std::nullopt;
  try {
    BatchState state;
    state.id = stored.at("id");
    state.tenant = stored.at("tenant");
    state.endpoint = stored.at("endpoint");
    state.input_file_id = stored.at("input_file_id");
    state.completion_window = stored.at("completion_window");
    const auto status = std::ranges::find(kStatusNames, stored.at("status").get<std::string>());
    if (status == kStatusNames.end()) return std::nullopt;
    state.status = static_cast<BatchStatus>(status - kStatusNames.begin());
    for (const auto& [name, value] : stored.at("metadata").items()) state.metadata.emplace_back(name, value);
    state.output_expires_seconds = stored.at("output_expires_seconds");
    state.model = stored.at("model");
    state.output_file_id = stored.at("output_file_id");
    state.error_file_id = stored.at("error_file_id");
    state.total = stored.at("total");
    state.completed = stored.at("completed");
    state.failed = stored.at("failed");
    state.input_tokens = stored.at("input_tokens");
    state.output_tokens = stored.at("output_tokens");
    for (const json& error : stored.at("errors")) {
      state.errors.push_back({error.at("line").is_null() ? 0 : error.at("line").get<uint64_t>(), error.at("code"),
                              error.at("message"),
                              error.at("param").is_null() ? "" : error.at("param").get<std::string>()});
    }
    for_each_time(state, [&stored](const char* name, int64_t& value) { value = stored.at(name); });
    return state;
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

std::string batch_body(const BatchState& state) {
  ordered_json body = {{"id", state.id},
                       {"object", "batch"},
                       {"endpoint", state.endpoint},
                       {"errors", state.errors.empty() ? ordered_json() : errors_json(state)},
                       {"input_file_id", state.input_file_id},
                       {"completion_window", state.completion_window},
                       {"status", batch_status_name(state.status)},
                       {"model", text_or_null(state.model)},
                       {"output_file_id", text_or_null(state.output_file_id)},
                       {"error_file_id", text_or_null(state.error_file_id)}};
  for_each_time(state, [&body](const char* name, int64_t value) {
    body[name] = value == 0 ? ordered_json() : ordered_json(value);
  });
  body["request_counts"] = {{"total", state.total}, {"completed", state.completed}, {"failed", state.failed}};
  body["usage"] = {{"input_tokens", state.input_tokens},
                   {"input_tokens_details", {{"cached_tokens", 0}}},
                   {"output_tokens", state.output_tokens},
                   {"output_tokens_details", {{"reasoning_tokens", 0}}},
                   {"total_tokens", state.input_tokens + state.output_tokens}};
  body["metadata"] = state.metadata.empty() ? ordered_json() : metadata_json(state);
  return http_api::json_text(body);
}

}  // namespace optserve::gateway
