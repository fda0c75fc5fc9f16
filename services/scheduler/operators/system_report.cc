#include "scheduler/operators/system_report.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

namespace optserve::scheduler {
namespace {

// These keep the answer within a client's message limit.
constexpr size_t kServicesShown = 1'000;
constexpr size_t kModelsShown = 1'000;

using protocol::ServiceKind;
constexpr ServiceKind kServiceKinds[] = {ServiceKind::kTokenizer, ServiceKind::kWorker, ServiceKind::kConverter};

protocol::ServiceStatus status_of(const ServiceEntry& entry, Instant now) {
  protocol::ServiceStatus status;
  status.kind = protocol::service_kind_name(entry.info.kind);
  status.instance = entry.info.instance.hex();
  status.name = entry.info.name;
  for (const protocol::ModelInfo& model : entry.info.models) status.models.push_back(model.name);
  status.running = static_cast<int32_t>(entry.leases.size() + entry.questions.size());
  status.capacity = entry.info.max_sequences;
  status.slots = entry.info.slots > 0 ? std::min(entry.info.slots, status.capacity) : status.capacity;
  status.silent_ms = std::chrono::duration_cast<milliseconds>(now - entry.heard).count();
  status.draining = entry.draining;
  status.paused = entry.held;
  return status;
}

// The time until all waiting jobs have started: a job that arrives now waits this long, unless its tenant has fewer
// jobs than others.
int64_t wait_ms_of_all(const ModelQueue& queue) {
  return ModelQueues::wait_ms(queue, {queue.jobs.size(), queue.jobs.tokens()}, 0);
}

// Infinite if nobody works on the jobs that wait: then no number would be true.
double wait_seconds(const ModelQueue& queue) {
  if (queue.jobs.size() == 0) return 0;
  const int64_t wait_ms = wait_ms_of_all(queue);
  return wait_ms < 0 ? std::numeric_limits<double>::infinity() : static_cast<double>(wait_ms) / 1'000;
}

double oldest_seconds(const ModelQueue& queue, Instant now) {
  const Job* job = queue.jobs.oldest();
  return job == nullptr ? 0 : std::max(0.0, std::chrono::duration<double>(now - job->times.begins_at).count());
}

}  // namespace

protocol::SystemStatus SystemReport::status(uint64_t request, Instant now) const {
  const JobTable& jobs = tables_.jobs;
  protocol::SystemStatus status;
  status.request = request;
  status.term = tables_.term;
  status.durable = tables_.store.is_durable();
  status.draining = tables_.draining;
  status.running = static_cast<int64_t>(jobs.count(Stage::kLeased) + jobs.count(Stage::kDecoding));
  status.queued = static_cast<int64_t>(jobs.size()) - status.running;
  status.finished = endings_.succeeded();
  status.failed = endings_.failed();
  status.cancelled = endings_.cancelled();
  status.expired = endings_.expired();
  status.mode = tables_.modes.queue();
  status.read_only = tables_.store.is_full();
  status.models = model_statuses();
  for (const ServiceKind kind : kServiceKinds) {
    for (const ServiceEntry* entry : tables_.services.of_kind(kind)) {
      if (status.services.size() >= kServicesShown) break;
      status.services.push_back(status_of(*entry, now));
    }
  }
  return status;
}

std::vector<std::string> SystemReport::known_models() const {
  std::vector<std::string> known = tables_.services.model_names();
  const std::vector<std::string> held = tables_.modes.held_models();
  known.insert(known.end(), tables_.options.models.begin(), tables_.options.models.end());
  known.insert(known.end(), held.begin(), held.end());
  for (const auto& [name, queue] : tables_.queues.all()) {
    if (!name.empty()) known.push_back(name);  // the queue without a name is that of conversions
  }
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  return known;
}

std::vector<protocol::ModelStatus> SystemReport::model_statuses() const {
  std::vector<protocol::ModelStatus> statuses;
  for (std::string& name : known_models()) {
    if (statuses.size() >= kModelsShown) break;
    protocol::ModelStatus& status = statuses.emplace_back();
    status.mode = tables_.modes.model(name);
    if (const auto found = tables_.queues.all().find(name); found != tables_.queues.all().end()) {
      const ModelQueue& queue = found->second;
      status.queued = static_cast<int64_t>(queue.jobs.size());
      status.running = static_cast<int64_t>(queue.running);
      status.tokens_per_second = queue.load.tokens_per_second();
      status.eta_ms = wait_ms_of_all(queue);
    }
    status.name = std::move(name);
  }
  return statuses;
}

void SystemReport::update_gauges(Instant now) {
  SchedulerMetrics& metrics = tables_.metrics;
  const auto in = [&](Stage stage) { return static_cast<double>(tables_.jobs.count(stage)); };
  metrics.encoding.set(in(Stage::kEncoding));
  metrics.waiting.set(in(Stage::kWaiting) + in(Stage::kDelayed));
  metrics.running.set(in(Stage::kLeased));
  metrics.decoding.set(in(Stage::kDecoding));
  const auto registered = [&](ServiceKind kind) { return static_cast<double>(tables_.services.of_kind(kind).size()); };
  metrics.services_tokenizer.set(registered(ServiceKind::kTokenizer));
  metrics.services_worker.set(registered(ServiceKind::kWorker));
  metrics.services_converter.set(registered(ServiceKind::kConverter));
  metrics.clients.set(static_cast<double>(tables_.streams.following()));
  metrics.known_keys.set(static_cast<double>(tables_.known.keys().size()));
  int64_t tokens = 0;
  double longest_wait = 0, oldest = 0;
  // It is 0 before a model's first job, so that autoscalers, which start groups by the jobs of a model, find it.
  for (const std::string& name : tables_.options.models) metrics.of_model(name);
  for (const auto& [name, queue] : tables_.queues.all()) {
    tokens += queue.jobs.tokens();
    const double wait = wait_seconds(queue);
    longest_wait = std::max(longest_wait, wait);
    const double age = oldest_seconds(queue, now);
    oldest = std::max(oldest, age);
    if (name.empty()) continue;  // the queue without a name is that of conversions
    SchedulerMetrics::OfModel& model = metrics.of_model(name);
    if (!metrics.is_measured(model)) continue;
    model.oldest_job_seconds.set(age);
    model.queue_tokens.set(static_cast<double>(queue.jobs.tokens()));
    model.waiting.set(static_cast<double>(queue.jobs.size()));
    model.running.set(static_cast<double>(queue.running));
    model.expected_wait_seconds.set(wait);
    model.tokens_per_second.set(queue.load.tokens_per_second());
  }
  metrics.queue_tokens.set(static_cast<double>(tokens));
  metrics.queue_bytes.set(static_cast<double>(tables_.bounds.bytes()));
  metrics.expected_wait_seconds.set(longest_wait);
  metrics.oldest_job_seconds.set(oldest);
  update_services(now);
}

void SystemReport::update_tenants() {
  const keys::TenantQuotas* quotas = tables_.tenants.quotas();
  if (quotas == nullptr) return;
  size_t looked_at = 0;
  for (const auto& [tenant, quota] : quotas->named()) {
    if (++looked_at > SchedulerMetrics::kTenantsMax) break;
    tables_.metrics.of_tenant(tenant, quotas);
  }
  for (auto& [tenant, gauges] : tables_.metrics.tenants()) {  // also those whose line is gone
    const TenantLoad load = tables_.bounds.load_of(tenant);
    gauges.jobs.set(static_cast<double>(load.jobs));
    gauges.tokens.set(static_cast<double>(load.tokens));
  }
}

void SystemReport::update_services(Instant now) {
  if (now < next_look_) return;
  next_look_ = now + seconds(1);
  update_tenants();
  struct Room {
    double groups = 0, slots = 0, kv_tokens = 0, kv_reserved = 0;
  };
  std::map<std::string, Room> rooms;
  for (const auto& [name, queue] : tables_.queues.all()) rooms[name];
  Duration silence{};
  for (const ServiceEntry* entry : tables_.services.all()) {
    silence = std::max(silence, now - entry->heard);
    if (entry->info.kind != ServiceKind::kWorker || entry->draining || entry->held) continue;
    for (const protocol::ModelInfo& model : entry->info.models) {
      Room& room = rooms[model.name];
      room.groups += 1;
      room.slots += entry->info.slots > 0 ? entry->info.slots : entry->info.max_sequences;
      room.kv_tokens += static_cast<double>(entry->info.kv_tokens);
      room.kv_reserved += static_cast<double>(entry->kv_reserved);
    }
  }
  tables_.metrics.service_silence_seconds.set(std::chrono::duration<double>(silence).count());
  for (const auto& [name, room] : rooms) {
    if (name.empty()) continue;
    SchedulerMetrics::OfModel& model = tables_.metrics.of_model(name);
    if (!tables_.metrics.is_measured(model)) continue;
    model.groups.set(room.groups);
    model.slots.set(room.slots);
    model.kv_tokens.set(room.kv_tokens);
    model.kv_reserved_tokens.set(room.kv_reserved);
  }
}

}  // namespace optserve::scheduler
