// The queues of all models, the workers that serve them, and which worker a job goes to: the one with the least
// expected wait, which follows from the tokens that it still has to process and its measured speed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "scheduler/leases/service_table.h"
#include "scheduler/queue/fair_queue.h"
#include "scheduler/queue/load_estimate.h"
#include "scheduler/queue/prefix_affinity.h"
#include "scheduler/scheduler_options.h"

namespace optserve::scheduler {

// Tokens of the KV cache that a job may need, in whole blocks.
int64_t kv_need(const Job& job);

// The workers that serve one model, or all converters: those with room in the order of their expected wait.
class WorkerIndex {
 public:
  // `wait`: any measure that can be compared within the index. take_out() needs the value that put() was given.
  void put(ServiceEntry& worker, double wait) { free_.insert({wait, worker.serial, &worker}); }
  void take_out(ServiceEntry& worker, double wait) { free_.erase({wait, worker.serial, &worker}); }
  bool has_free() const { return !free_.empty(); }
  // The worker with the least wait that `fits`, among the first few; nullptr: none of them does.
  template <class F>
  ServiceEntry* choose(F&& fits) const {
    int looked = 0;
    for (const Place& place : free_) {
      if (++looked > kLookahead) break;
      ++looked_at_;
      if (fits(*place.worker)) return place.worker;
    }
    return nullptr;
  }

  // Workers that are not draining, free or not.
  int serving = 0;
  // How many workers decisions have looked at, in all. Tests use it to bound the cost of decisions.
  uint64_t looked_at() const { return looked_at_; }

 private:
  static constexpr int kLookahead = 32;  // bounds the work of one decision
  struct Place {
    double wait = 0;
    uint64_t serial = 0;
    ServiceEntry* worker = nullptr;
    bool operator<(const Place& other) const { return wait != other.wait ? wait < other.wait : serial < other.serial; }
  };
  std::set<Place> free_;
  mutable uint64_t looked_at_ = 0;
};

// What waits for one model, and who serves it. Conversions have one queue, with no name.
struct ModelQueue {
  ModelQueue(std::string given, const TenantWeights& weights) : name(std::move(given)), jobs(weights) {}
  std::string name;
  FairQueue jobs;
  LoadEstimate load;
  WorkerIndex workers;
  size_t running = 0;
  bool wanted = false;  // one of its jobs may have found a worker: the next round of dispatch looks
};

class ModelQueues {
 public:
  explicit ModelQueues(const SchedulerOptions& options) : options_(options) {}

  ModelQueue& of(const protocol::JobSpec& spec) {
    return queue_of(spec.kind == protocol::JobKind::kConvert ? "" : spec.model);
  }
  // The queues that ever had a job or a worker; they stay as long as the process lives.
  const std::map<std::string, ModelQueue, std::less<>>& all() const { return queues_; }

  // A worker or converter registered, for the first time or again.
  void join(ServiceEntry& worker);
  void leave(ServiceEntry& worker);
  // The worker has more or less room than before, or takes more or less work.
  void refresh(ServiceEntry& worker);
  // The worker gets no jobs before `until`.
  void pause(ServiceEntry& worker, Instant until);
  void on_tick(Instant now);

  // The worker got the job, or has just given it up.
  void on_leased(ServiceEntry& worker, Job& job);
  void on_released(ServiceEntry& worker, Job& job);
  // Tokens of the job's cost that its next token stands for: the first of an attempt for the prompt as well.
  static int64_t take_processed(Job& job);
  // Whether the worker has all the work that it can take. Ask before it gives up jobs, and tell on_processed().
  bool is_saturated(const ServiceEntry& worker) const;
  void on_processed(ServiceEntry& worker, int64_t tokens, bool saturated, Instant now);

  void want(ModelQueue& queue);
  void want_all();
  bool is_wanted() const { return !wanted_.empty(); }
  std::vector<ModelQueue*> take_wanted();
  // Where the job would go. kSkip: only a group that it avoids has room; kStop: the job has to wait for room.
  struct Choice {
    FairQueue::Verdict verdict = FairQueue::Verdict::kStop;
    ServiceEntry* worker = nullptr;
  };
  Choice choose(const ModelQueue& queue, const Job& job) const;
  // How many jobs wait that this worker could run.
  int64_t waiting_for(const ServiceEntry& worker) const;
  // Expected wait until a job of `cost` tokens starts that has `ahead` before it; -1: not known.
  static int64_t wait_ms(const ModelQueue& queue, const FairQueue::Ahead& ahead, int64_t cost);
  // Expected time of one that runs beside as many others as now, for its output; 0: not known.
  static int64_t run_ms(const ModelQueue& queue, int64_t new_tokens);

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
