// Where waiting jobs stand, and what the models have before them. Under fair sharing a place is an estimate: it counts
// the tenant's own jobs ahead and what the other tenants' shares let start meanwhile. Jobs that come later can only
// move a job back if they have a higher priority or belong to a tenant that had less.
#include <algorithm>
#include <utility>

#include "scheduler/scheduler_service.h"

namespace optserve::scheduler {
namespace {

constexpr Duration kPlacesInterval = seconds(1);
constexpr size_t kPlacesPerModel = 1'000;  // bounds the work of one tick
constexpr size_t kModelsShown = 1'000;

}  // namespace

SchedulerService::Place SchedulerService::place_of(const Job& job, Instant now) const {
  if (job.stage == Stage::kDelayed) {
    const int64_t delay = std::chrono::ceil<milliseconds>(job.delayed_until - now).count();
    const int64_t wait = ModelQueues::wait_ms(*job.queue, {}, job.cost);
    return {0, wait < 0 ? -1 : std::max<int64_t>(0, delay) + wait};
  }
  if (job.queue_state == QueueState::kOut) return {};
  const FairQueue::Ahead ahead = job.queue->jobs.ahead_of(job, now);
  return {static_cast<uint32_t>(ahead.jobs), ModelQueues::wait_ms(*job.queue, ahead, job.cost)};
}

void SchedulerService::tell_places(Instant now) {
  if (now < next_places_) return;
  next_places_ = now + kPlacesInterval;
  for (const auto& [name, queue] : queues_.all()) {
    std::vector<Job*> changed;
    queue.jobs.for_first(kPlacesPerModel, now, [&](Job& job) {
      if (job.subscriptions.empty()) return;
      const Place place = place_of(job, now);
      if (place.position == job.told_position && place.eta_ms == job.told_eta_ms) return;
      job.told_position = place.position;
      job.told_eta_ms = place.eta_ms;
      job.place_pending = true;
      changed.push_back(&job);
    });
    for (Job* job : changed) streams_.touch(*job);
  }
}

std::vector<protocol::ModelStatus> SchedulerService::model_statuses() const {
  std::vector<protocol::ModelStatus> statuses;
  for (std::string& name : known_models()) {
    if (statuses.size() >= kModelsShown) break;
    protocol::ModelStatus& status = statuses.emplace_back();
    status.mode = modes_.model(name);
    if (const auto found = queues_.all().find(name); found != queues_.all().end()) {
      const ModelQueue& queue = found->second;
      status.queued = static_cast<int64_t>(queue.jobs.size());
      status.running = static_cast<int64_t>(queue.running);
      status.tokens_per_second = queue.load.tokens_per_second();
      status.eta_ms = ModelQueues::wait_ms(queue, queue.jobs.ahead_of_new("", 0), 0);
    }
    status.name = std::move(name);
  }
  return statuses;
}

void SchedulerService::update_queue_gauges() {
  int64_t tokens = 0, wait_ms = 0;
  for (const auto& [name, queue] : queues_.all()) {
    tokens += queue.jobs.tokens();
    wait_ms = std::max(wait_ms, ModelQueues::wait_ms(queue, {queue.jobs.size(), queue.jobs.tokens()}, 0));
  }
  metrics_.queue_tokens.set(static_cast<double>(tokens));
  metrics_.queue_bytes.set(static_cast<double>(bounds_.bytes()));
  metrics_.expected_wait_seconds.set(static_cast<double>(wait_ms) / 1'000);
}

}  // namespace optserve::scheduler
