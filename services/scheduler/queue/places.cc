#include "scheduler/queue/places.h"

#include <algorithm>

namespace optserve::scheduler {
namespace {

constexpr Duration kPlacesInterval = seconds(1);
constexpr size_t kPlacesPerModel = 1'000;  // bounds the work of one tick

}  // namespace

Place place_of(const Job& job, Instant now) {
  const ModelQueue& queue = *job.slot.queue;
  if (job.stage() == Stage::kDelayed) {
    const int64_t delay = std::chrono::ceil<milliseconds>(job.times.delayed_until() - now).count();
    const int64_t wait = ModelQueues::wait_ms(queue, {}, job.slot.cost);
    return {0, wait < 0 ? -1 : std::max<int64_t>(0, delay) + wait};
  }
  if (job.slot.state() == QueueSlot::State::kOut) return {};
  const FairQueue::Ahead ahead = queue.jobs.ahead_of(job, now);
  return {static_cast<uint32_t>(ahead.jobs), ModelQueues::wait_ms(queue, ahead, job.slot.cost)};
}

void Places::tell(Instant now) {
  if (now < next_) return;
  next_ = now + kPlacesInterval;
  for (const auto& [name, queue] : tables_.queues.all()) {
    std::vector<Job*> changed;
    queue.jobs.for_first(kPlacesPerModel, now, [&](Job& job) {
      JobFollowers& followers = job.followers();
      if (followers.subscriptions.empty()) return;
      const Place place = place_of(job, now);
      if (place.position == followers.told_position && place.eta_ms == followers.told_eta_ms) return;
      followers.told_position = place.position;
      followers.told_eta_ms = place.eta_ms;
      followers.place_pending = true;
      changed.push_back(&job);
    });
    for (Job* job : changed) tables_.streams.touch(*job);
  }
}

}  // namespace optserve::scheduler
