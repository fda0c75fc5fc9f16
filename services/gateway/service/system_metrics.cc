#include "gateway/service/system_metrics.h"

#include <algorithm>

namespace optserve::gateway {
namespace {

constexpr size_t kModelsMax = 100;  // of which each has metrics of its own
constexpr const char* kOtherModels = "other";

metrics::Gauge schedulers(metrics::Registry& registry, const char* state) {
  return registry.gauge("optserve_gateway_schedulers", "Schedulers of this gateway, by whether they answer",
                        {{"state", state}});
}

}  // namespace

SystemMetrics::SystemMetrics(metrics::Registry& registry)
    : registry_(registry), answering_(schedulers(registry, "answering")), silent_(schedulers(registry, "silent")) {}

SystemMetrics::OfModel& SystemMetrics::of_model(const std::string& given) {
  const std::string& name = models_.contains(given) || models_.size() < kModelsMax ? given : kOtherModels;
  const auto [found, is_new] = models_.try_emplace(name);
  OfModel& model = found->second;
  if (is_new) {
    const metrics::Labels labels{{"model", name}};
    model.waiting_gauge = registry_.gauge("optserve_gateway_requests_waiting",
                                          "Jobs of a model that wait, of all schedulers of this gateway", labels);
    model.running_gauge = registry_.gauge("optserve_gateway_requests_running",
                                          "Jobs of a model that run, of all schedulers of this gateway", labels);
    model.usage_gauge =
        registry_.gauge("optserve_gateway_slot_usage_ratio",
                        "Part of the places of a model's groups that is taken, 0 to 1; 1 without a group", labels);
  }
  return model;
}

void SystemMetrics::update(const client::Answers<protocol::SystemStatus>& answers) {
  for (auto& [name, model] : models_) model.waiting = model.running = model.used_slots = model.slots = 0;
  double answering = 0;
  for (const auto& [endpoint, answer] : answers) {
    if (!answer.ok()) continue;
    ++answering;
    for (const protocol::ModelStatus& status : answer.value().models) {
      OfModel& model = of_model(status.name);
      model.waiting += static_cast<double>(status.queued);
      model.running += static_cast<double>(status.running);
    }
    for (const protocol::ServiceStatus& service : answer.value().services) {
      if (service.kind != "worker" || service.draining || service.models.empty()) continue;
      OfModel& model = of_model(service.models.front());
      model.used_slots += std::min(service.running, service.slots);
      model.slots += service.slots;
    }
  }
  answering_.set(answering);
  silent_.set(static_cast<double>(answers.size()) - answering);
  for (auto& [name, model] : models_) {
    model.waiting_gauge.set(model.waiting);
    model.running_gauge.set(model.running);
    model.usage_gauge.set(model.slots > 0 ? std::min(1.0, model.used_slots / model.slots) : 1);
  }
}

}  // namespace optserve::gateway
