#include "scheduler/queue/model_queues.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/limits.h"
#include "scheduler/access/rights.h"

namespace optserve::scheduler {
namespace {

constexpr double kTypicalJobTokens = 256;  // of the job that is to be placed: an idle fast group beats an idle slow one
constexpr double kChangeSeen = 0.05;       // smaller changes of a wait or a speed do not move a worker
constexpr double kAffinityFactor = 1.5;    // a group with the prefix may be this much slower,
constexpr double kAffinitySeconds = 0.5;   // or this much

}  // namespace

int64_t kv_need(const Job& job) {
  const auto tokens = static_cast<int64_t>(job.prompt().ids.size()) + job.tokens_each() * job.spec().max_new_tokens;
  return (tokens + limits::kKvBlockTokens - 1) / limits::kKvBlockTokens * limits::kKvBlockTokens;
}

ModelQueue& ModelQueues::queue_of(const std::string& name) {
  const auto found = queues_.find(name);
  if (found != queues_.end()) return found->second;
  return queues_.try_emplace(name, name, options_.tenant_weights).first->second;
}

void ModelQueues::join(ServiceEntry& worker) {
  if (worker.info.kind == protocol::ServiceKind::kTokenizer) return;
  leave(worker);
  if (worker.info.kind == protocol::ServiceKind::kConverter) {
    worker.queues.push_back(&queue_of(""));
  } else {
    for (const protocol::ModelInfo& model : worker.info.models) worker.queues.push_back(&queue_of(model.name));
    std::sort(worker.queues.begin(), worker.queues.end(),
              [](const auto* a, const auto* b) { return a->name < b->name; });
    worker.queues.erase(std::unique(worker.queues.begin(), worker.queues.end()), worker.queues.end());
  }
  for (ModelQueue* queue : worker.queues) {
    queue->load.add_worker(worker.tokens_per_second);
    ++queue->workers.serving;
  }
  worker.counted_as_serving = true;
  by_serial_[worker.serial] = &worker;
  refresh(worker);
}

void ModelQueues::leave(ServiceEntry& worker) {
  unindex(worker);
  if (std::exchange(worker.is_paused, false)) paused_.erase({worker.paused_until, worker.serial});
  for (ModelQueue* queue : worker.queues) {
    queue->load.remove_worker(worker.tokens_per_second);
    if (worker.counted_as_serving) --queue->workers.serving;
    want(*queue);  // jobs that avoided this worker may have to take the one that is left
  }
  worker.queues.clear();
  by_serial_.erase(worker.serial);
  affinity_.forget(worker.serial);
}

double ModelQueues::expected_wait(const ServiceEntry& worker) const {
  const double tokens = static_cast<double>(worker.unprocessed) + kTypicalJobTokens;
  if (worker.tokens_per_second > 0) return tokens / worker.tokens_per_second;
  const double mean = worker.queues.empty() ? 0 : worker.queues.front()->load.mean_worker_speed();
  return tokens / (mean > 0 ? mean : static_cast<double>(worker.room()));
}

void ModelQueues::index(ServiceEntry& worker) {
  worker.indexed_wait = expected_wait(worker);
  worker.is_indexed = true;
  for (ModelQueue* queue : worker.queues) {
    queue->workers.put(worker, worker.indexed_wait);
    if (!queue->jobs.empty()) want(*queue);
  }
}

void ModelQueues::unindex(ServiceEntry& worker) {
  if (!std::exchange(worker.is_indexed, false)) return;
  for (ModelQueue* queue : worker.queues) queue->workers.take_out(worker, worker.indexed_wait);
}

void ModelQueues::refresh(ServiceEntry& worker) {
  if (worker.queues.empty()) return;  // runs no jobs
  const bool serves = !worker.draining && !worker.held;
  if (serves != worker.counted_as_serving) {
    for (ModelQueue* queue : worker.queues) {
      queue->workers.serving += serves ? 1 : -1;
      want(*queue);
    }
    worker.counted_as_serving = serves;
  }
  const bool is_free = serves && !worker.is_paused && !worker.is_away() && worker.free_slots() > 0;
  if (is_free && worker.is_indexed && expected_wait(worker) == worker.indexed_wait) return;
  unindex(worker);
  if (is_free) index(worker);
}

void ModelQueues::pause(ServiceEntry& worker, Instant until) {
  if (worker.queues.empty()) {
    worker.paused_until = until;
    return;
  }
  if (std::exchange(worker.is_paused, true)) paused_.erase({worker.paused_until, worker.serial});
  worker.paused_until = until;
  paused_[{until, worker.serial}] = &worker;
  refresh(worker);
}

void ModelQueues::on_tick(Instant now) {
  while (!paused_.empty() && paused_.begin()->first.first <= now) {
    ServiceEntry& worker = *paused_.begin()->second;
    paused_.erase(paused_.begin());
    worker.is_paused = false;
    refresh(worker);
  }
}

void ModelQueues::on_leased(ServiceEntry& worker, Job& job) {
  const auto done = static_cast<int64_t>(job.output().ids.size());
  job.lease().prompt_tokens_ = static_cast<int64_t>(job.prompt().ids.size()) + done;
  job.lease().unprocessed_ = job.lease().prompt_tokens_ + job.tokens_each() * (job.spec().max_new_tokens - done);
  worker.unprocessed += job.lease().unprocessed_;
  ++job.slot.queue->running;
  if (job.is_generation()) {
    job.lease().kv_reserved_ = kv_need(job);
    worker.kv_reserved += job.lease().kv_reserved_;
    if (options_.prefix_affinity) affinity_.note(PrefixAffinity::hash(job.prompt().ids), worker.serial);
  }
  refresh(worker);
}

void ModelQueues::on_released(ServiceEntry& worker, Job& job) {
  worker.unprocessed -= std::exchange(job.lease().unprocessed_, 0);
  worker.kv_reserved -= std::exchange(job.lease().kv_reserved_, 0);
  --job.slot.queue->running;
  if (worker.leases.empty()) worker.meter.pause();
  refresh(worker);
  for (ModelQueue* queue : worker.queues) {
    if (worker.is_indexed && !queue->jobs.empty()) want(*queue);  // there is more room in its cache
  }
}

int64_t ModelQueues::take_processed(Job& job) {
  JobLease& lease = job.lease();
  const int64_t processed = std::min(lease.unprocessed_, std::exchange(lease.prompt_tokens_, 0) + job.tokens_each());
  lease.unprocessed_ -= processed;
  return processed;
}

bool ModelQueues::is_saturated(const ServiceEntry& worker) const {
  if (worker.draining || worker.held) return false;
  return worker.free_slots() <= 0 || std::any_of(worker.queues.begin(), worker.queues.end(),
                                                 [](const ModelQueue* queue) { return !queue->jobs.empty(); });
}

void ModelQueues::on_processed(ServiceEntry& worker, int64_t tokens, bool saturated, Instant now) {
  worker.unprocessed -= tokens;
  if (worker.leases.empty()) {
    worker.meter.pause();
  } else {
    worker.meter.record(static_cast<double>(tokens), now, saturated);
  }
  const double speed = worker.meter.tokens_per_second();
  if (std::abs(speed - worker.tokens_per_second) > kChangeSeen * worker.tokens_per_second) {
    for (ModelQueue* queue : worker.queues) {
      queue->load.remove_worker(worker.tokens_per_second);
      queue->load.add_worker(speed);
    }
    worker.tokens_per_second = speed;
  }
  const bool moved = std::abs(expected_wait(worker) - worker.indexed_wait) > kChangeSeen * worker.indexed_wait;
  if (worker.is_indexed && moved) refresh(worker);
}

void ModelQueues::want(ModelQueue& queue) {
  if (!std::exchange(queue.wanted, true)) wanted_.push_back(&queue);
}

void ModelQueues::want_all() {
  for (auto& [name, queue] : queues_) want(queue);
}

std::vector<ModelQueue*> ModelQueues::take_wanted() {
  for (ModelQueue* queue : wanted_) queue->wanted = false;
  return std::exchange(wanted_, {});
}

ServiceEntry* ModelQueues::preferred(const Job& job, const ServiceEntry& best) const {
  const auto found = by_serial_.find(affinity_.worker_of(PrefixAffinity::hash(job.prompt().ids)));
  if (found == by_serial_.end()) return nullptr;
  ServiceEntry& worker = *found->second;
  const bool serves = std::find(worker.queues.begin(), worker.queues.end(), job.slot.queue) != worker.queues.end();
  const double limit = std::max(best.indexed_wait * kAffinityFactor, best.indexed_wait + kAffinitySeconds);
  return serves && worker.is_indexed && worker.indexed_wait <= limit ? &worker : nullptr;
}

ModelQueues::Choice ModelQueues::choose(const ModelQueue& queue, const Job& job) const {
  bool avoided = false;
  const auto fits = [&](const ServiceEntry& worker) {
    // A retry goes to another worker, if there is another one.
    if (queue.workers.serving > 1 && job.attempts().avoid == worker.info.instance) {
      avoided = true;
      return false;
    }
    if (!worker.folders.empty() && job.spec().convert && !covers(worker.folders, *job.spec().convert)) {
      avoided = true;
      return false;
    }
    if (!job.is_generation() || worker.info.kv_tokens == 0 || worker.leases.empty()) return true;
    return worker.kv_reserved + kv_need(job) <= worker.info.kv_tokens;
  };
  ServiceEntry* best = queue.workers.choose(fits);
  // A large job at the head is not overtaken by smaller ones for ever: it waits for room.
  if (best == nullptr) return {avoided ? FairQueue::Verdict::kSkip : FairQueue::Verdict::kStop, nullptr};
  if (options_.prefix_affinity) {
    ServiceEntry* holder = preferred(job, *best);
    if (holder != nullptr && fits(*holder)) best = holder;
  }
  return {FairQueue::Verdict::kTake, best};
}

int64_t ModelQueues::waiting_for(const ServiceEntry& worker) const {
  size_t waiting = 0;
  for (const ModelQueue* queue : worker.queues) waiting += queue->jobs.waiting();
  return static_cast<int64_t>(waiting);
}

int64_t ModelQueues::wait_ms(const ModelQueue& queue, const FairQueue::Ahead& ahead, int64_t cost) {
  if (ahead.jobs == 0 && queue.workers.has_free()) return 0;
  return queue.load.drain_ms(static_cast<double>(ahead.tokens + cost));
}

int64_t ModelQueues::run_ms(const ModelQueue& queue, int64_t new_tokens) {
  return std::max<int64_t>(0,
                           queue.load.drain_ms(static_cast<double>(new_tokens) * static_cast<double>(queue.running)));
}

}  // namespace optserve::scheduler
