#include "cli/text/status_text.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/text/text_table.h"
#include "job_json/job_json.h"

namespace optserve::cli {
namespace {

using protocol::ModelStatus;
using protocol::QueueMode;
using protocol::ServiceStatus;
using protocol::SystemStatus;

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
  return json_line(job_json::status_json(answers));
}

std::string status_table(const client::Answers<SystemStatus>& answers) {
  std::string text;
  for (const auto& scheduler : answers) text += (text.empty() ? "" : "\n") + scheduler_text(scheduler);
  return text;
}

}  // namespace optserve::cli
