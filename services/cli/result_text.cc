#include "cli/result_text.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "cli/exit_status.h"

namespace optserve::cli {
namespace {

using nlohmann::ordered_json;
using protocol::JobResult;
using Row = std::vector<std::string>;

std::string line(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

ordered_json error_name(const std::optional<ErrorCode>& error) {
  return error ? ordered_json(std::string(error_code_name(*error))) : ordered_json();
}

ordered_json timings_json(const protocol::Timings& timings) {
  return {{"encode_ms", timings.encode_ms},
          {"queue_ms", timings.queue_ms},
          {"first_token_ms", timings.first_token_ms},
          {"run_ms", timings.run_ms},
          {"total_ms", timings.total_ms}};
}

// Columns as wide as their widest cell.
std::string table(const std::vector<Row>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    std::string one;
    for (size_t i = 0; i < row.size(); ++i) one += row[i] + std::string(widths[i] - row[i].size() + 2, ' ');
    text += one.substr(0, one.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::string joined(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) text += (text.empty() ? "" : ",") + item;
  return text;
}

}  // namespace

std::string result_json(const JobResult& result) {
  ordered_json root{{"job", result.job.hex()},
                    {"key", result.key},
                    {"state", protocol::job_state_name(result.state)},
                    {"finish_reason", protocol::finish_reason_name(result.finish_reason)},
                    {"error", error_name(result.error)},
                    {"message", result.message},
                    {"text", result.text},
                    {"ids", result.ids},
                    {"prompt_tokens", result.prompt_tokens},
                    {"output_tokens", result.ids.size()},
                    {"attempts", result.attempts},
                    {"progress_done", result.progress_done},
                    {"progress_total", result.progress_total},
                    {"timings", timings_json(result.timings)}};
  if (!result.prompt_logprobs.empty()) root["prompt_logprobs"] = result.prompt_logprobs;
  return line(root);
}

std::string status_json(const protocol::SystemStatus& status) {
  ordered_json services = ordered_json::array();
  for (const protocol::ServiceStatus& service : status.services)
    services.push_back({{"kind", service.kind},
                        {"instance", service.instance},
                        {"name", service.name},
                        {"models", service.models},
                        {"running", service.running},
                        {"capacity", service.capacity},
                        {"silent_ms", service.silent_ms},
                        {"draining", service.draining}});
  return line({{"term", status.term},
               {"durable", status.durable},
               {"draining", status.draining},
               {"queued", status.queued},
               {"running", status.running},
               {"finished", status.finished},
               {"failed", status.failed},
               {"services", std::move(services)}});
}

std::string outcome_json(const protocol::SubmitOutcome& outcome) {
  return line({{"job", outcome.job ? ordered_json(outcome.job->hex()) : ordered_json()},
               {"position", outcome.position},
               {"duplicate", outcome.duplicate},
               {"error", error_name(outcome.error)},
               {"message", outcome.message}});
}

std::string status_table(const std::string& endpoint, const protocol::SystemStatus& status) {
  std::string text = "scheduler " + endpoint + ", term " + std::to_string(status.term) +
                     (status.durable ? ", durable" : ", volatile: jobs are lost when it stops") +
                     (status.draining ? ", draining" : "") + "\n";
  text += "jobs: " + std::to_string(status.queued) + " queued, " + std::to_string(status.running) + " running, " +
          std::to_string(status.finished) + " finished, " + std::to_string(status.failed) + " failed\n";
  if (status.services.empty()) return text + "no tokenizer, worker or converter is connected\n";
  std::vector<Row> rows{{"KIND", "NAME", "MODELS", "RUNNING", "CAPACITY", "SILENT", "STATE"}};
  for (const protocol::ServiceStatus& service : status.services)
    rows.push_back({service.kind, service.name, joined(service.models), std::to_string(service.running),
                    std::to_string(service.capacity), std::to_string(service.silent_ms) + " ms",
                    service.draining ? "draining" : "ready"});
  return text + table(rows);
}

std::string result_summary(const JobResult& result) {
  std::string text = "job " + result.job.hex() + ": " + std::string(protocol::job_state_name(result.state));
  if (result.finish_reason != protocol::FinishReason::kNone)
    text += " (" + std::string(protocol::finish_reason_name(result.finish_reason)) + ")";
  if (result.error) text += ", " + std::string(error_code_name(*result.error)) + ": " + result.message;
  if (result.prompt_tokens > 0 || !result.ids.empty())
    text += ", " + std::to_string(result.prompt_tokens) + " prompt and " + std::to_string(result.ids.size()) +
            " output tokens";
  return text + "\n";
}

int exit_status_of(const JobResult& result) {
  return result.state == protocol::JobState::kSucceeded ? kExitOk : kExitRefused;
}

}  // namespace optserve::cli
