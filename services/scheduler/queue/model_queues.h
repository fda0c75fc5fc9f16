// The queues of all models, the workers that serve them, and which worker a job goes to: the one with the least
// expected wait, by the tokens that it has before it and its measured speed.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "scheduler/queue/fair_queue.h"
#include "scheduler/queue/load_estimate.h"
#include "scheduler/queue/prefix_affinity.h"
#include "scheduler/scheduler_options.h"
#include "scheduler/queue/worker_index.h"

namespace optserve::scheduler {

// Tokens of the KV cache that a job may need, in whole blocks.
int64_t kv_need(const Job& job);

// Conversions have one queue, with no name.
struct ModelQueue {
  ModelQueue(std::string given, const TenantWeights& weights) : name(std::move(given)), jobs(weights) {}
  std::string name;
  FairQueue jobs;
  LoadEstimate load;
  WorkerIndex workers;
  size_t running = 0;
  bool wanted = false;  // a job or a worker may have found its counterpart
};

class ModelQueues {
 public:
  explicit ModelQueues(const SchedulerOptions& options) : options_(options) {}

  ModelQueue& of(const protocol::JobSpec& spec) {
    return queue_of(spec.kind == protocol::JobKind::kConvert ? "" : spec.model);
  }
  // All that ever had a job or a worker; they stay for the life of the process.
  const std::map<std::string, ModelQueue, std::less<>>& all() const { return queues_; }

  // A worker or converter registered, or registered anew.
  void join(ServiceEntry& worker);
  void leave(ServiceEntry& worker);
  // Its room, its will or its load has changed.
  void refresh(ServiceEntry& worker);
  // It gets nothing before `until`.
  void pause(ServiceEntry& worker, Instant until);
  void on_tick(Instant now);

  // The job's lease began or is about to end: `worker` holds it.
  void on_leased(ServiceEntry& worker, Job& job);
  void on_released(ServiceEntry& worker, Job& job);
  // It processed `tokens` of its leases, `saturated` until then.
  bool is_saturated(const ServiceEntry& worker) const;
  void on_processed(ServiceEntry& worker, int64_t tokens, bool saturated, Instant now);

  void want(ModelQueue& queue);
  void want_all();
  bool is_wanted() const { return !wanted_.empty(); }
  std::vector<ModelQueue*> take_wanted();
  // Where the job would go. kSkip: only to a group that it avoids; kStop: it has to wait for room.
  struct Choice {
    FairQueue::Verdict verdict = FairQueue::Verdict::kStop;
    ServiceEntry* worker = nullptr;
  };
  Choice choose(const ModelQueue& queue, const Job& job) const;
  // Jobs that this worker could run and that wait.
  int64_t waiting_for(const ServiceEntry& worker) const;
  // Expected wait until a job of `cost` starts behind `ahead`; -1: not known.
  static int64_t wait_ms(const ModelQueue& queue, const FairQueue::Ahead& ahead, int64_t cost);

 private:
  ModelQueue& queue_of(const std::string& name);
  double expected_wait(const ServiceEntry& worker) const;
  void index(ServiceEntry& worker);
  void unindex(ServiceEntry& worker);
  ServiceEntry* preferred(const Job& job, const ServiceEntry& best) const;

  const SchedulerOptions& options_;
  std::map<std::string, ModelQueue, std::less<>> queues_;
  std::vector<ModelQueue*> wanted_;
  std::map<std::pair<Instant, uint64_t>, ServiceEntry*> paused_;  // by the end of the pause and serial
  std::map<uint64_t, ServiceEntry*> by_serial_;
  PrefixAffinity affinity_;
};

}  // namespace optserve::scheduler
