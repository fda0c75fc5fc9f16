#include "cli/text/status_text.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/text/text_table.h"

namespace optserve::cli {
namespace {

using nlohmann::ordered_json;
using protocol::ModelStatus;
using protocol::QueueMode;
using protocol::ServiceStatus;
using protocol::SystemStatus;

ordered_json services_json(const SystemStatus& status) {
  ordered_json services = ordered_json::array();
  for (const ServiceStatus& service : status.services) {
    services.push_back({{"kind", service.kind},
                        {"instance", service.instance},
                        {"name", service.name},
                        {"models", service.models},
                        {"running", service.running},
                        {"capacity", service.capacity},
                        {"slots", service.slots > 0 ? service.slots : service.capacity},
                        {"silent_ms", service.silent_ms},
                        {"draining", service.draining},
                        {"paused", service.paused}});
  }
  return services;
}

ordered_json models_json(const SystemStatus& status) {
  ordered_json models = ordered_json::array();
  for (const ModelStatus& model : status.models) {
    models.push_back({{"name", model.name},
                      {"mode", protocol::queue_mode_name(model.mode)},
                      {"queued", model.queued},
                      {"running", model.running},
                      {"tokens_per_second", model.tokens_per_second},
                      {"eta_ms", model.eta_ms}});
  }
  return models;
}

ordered_json scheduler_json(const client::SchedulerAnswer<SystemStatus>& scheduler) {
  if (!scheduler.answer.ok()) {
    const Refusal& refusal = scheduler.answer.refusal();
    return {{"endpoint", scheduler.endpoint},
            {"error", std::string(error_code_name(refusal.code))},
            {"message", refusal.message}};
  }
  const SystemStatus& status = scheduler.answer.value();
  return {{"endpoint", scheduler.endpoint}, {"term", status.term},
          {"durable", status.durable},      {"read_only", status.read_only},
          {"draining", status.draining},    {"mode", protocol::queue_mode_name(status.mode)},
          {"queued", status.queued},        {"running", status.running},
          {"finished", status.finished},    {"failed", status.failed},
          {"cancelled", status.cancelled},  {"expired", status.expired},
          {"models", models_json(status)},  {"services", services_json(status)}};
}

std::string joined(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) text += (text.empty() ? "" : ",") + item;
  return text;
}

std::string models_table(const SystemStatus& status) {
  if (status.models.empty()) return "";
  std::vector<TextRow> rows{{"MODEL", "QUEUE", "QUEUED", "RUNNING", "TOKENS/S", "WAIT"}};
  for (const ModelStatus& model : status.models) {
    rows.push_back({model.name, std::string(protocol::queue_mode_name(model.mode)), std::to_string(model.queued),
                    std::to_string(model.running),
                    model.tokens_per_second > 0 ? std::to_string(std::lround(model.tokens_per_second)) : "-",
                    model.eta_ms >= 0 ? duration_text(model.eta_ms) : "-"});
  }
  return text_table(rows);
}

// "64", or "64 (+16 ahead)" where further jobs wait with the service for a slot.
std::string slots_text(const ServiceStatus& service) {
  if (service.capacity <= 0) return "-";
  const int32_t ahead = service.slots > 0 ? service.capacity - service.slots : 0;
  return std::to_string(service.capacity - ahead) + (ahead > 0 ? " (+" + std::to_string(ahead) + " ahead)" : "");
}

std::string services_table(const SystemStatus& status) {
  if (status.services.empty()) return "no tokenizer, worker or converter is connected\n";
  std::vector<TextRow> rows{{"KIND", "NAME", "MODELS", "JOBS", "SLOTS", "LAST HEARD", "STATE"}};
  for (const ServiceStatus& service : status.services) {
    rows.push_back({service.kind, service.name, joined(service.models), std::to_string(service.running),
                    slots_text(service), std::to_string(service.silent_ms) + " ms ago",
                    service.paused     ? "paused"
                    : service.draining ? "draining"
                                       : "ready"});
  }
  return text_table(rows);
}

std::string scheduler_text(const client::SchedulerAnswer<SystemStatus>& scheduler) {
  std::string text = "scheduler " + scheduler.endpoint;
  if (!scheduler.answer.ok()) return text + ": " + scheduler.answer.refusal().message + "\n";
  const SystemStatus& status = scheduler.answer.value();
  text += ", term " + std::to_string(status.term);
  text += status.durable ? ", durable" : ", volatile: jobs are lost when it stops";
  if (status.draining) text += ", stopping";
  if (status.mode == QueueMode::kPaused) text += ", paused: accepts jobs, starts none";
  if (status.mode == QueueMode::kDraining) text += ", draining: accepts no jobs";
  text += "\n";
  if (status.read_only) text += "READ-ONLY: the disk of the journal is full, no job is accepted\n";
  text += "jobs: " + std::to_string(status.queued) + " queued, " + std::to_string(status.running) + " running, " +
          std::to_string(status.finished) + " succeeded, " + std::to_string(status.failed) + " failed, " +
          std::to_string(status.cancelled) + " cancelled, " + std::to_string(status.expired) + " expired\n";
  return text + models_table(status) + services_table(status);
}

}  // namespace

std::string status_json(const client::Answers<SystemStatus>& answers) {
  ordered_json schedulers = ordered_json::array();
  for (const auto& scheduler : answers) schedulers.push_back(scheduler_json(scheduler));
  return json_line({{"schedulers", std::move(schedulers)}});
}

std::string status_table(const client::Answers<SystemStatus>& answers) {
  std::string text;
  for (const auto& scheduler : answers) text += (text.empty() ? "" : "\n") + scheduler_text(scheduler);
  return text;
}

}  // namespace optserve::cli
