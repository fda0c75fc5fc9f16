// The jobs of one model that wait for a group. Priority first; within a priority the tenants share by weight, counted
// in tokens (start-time fair queueing: the tenant with the least virtual time goes next, and pays for the job that it
// starts); within a tenant in order of acceptance, so that a retry keeps its place. When a tenant's oldest job has used
// up half of its time to start, the tenant's newest goes first: some are served in time instead of all too late.
//
// Every operation is O(log n) in jobs and tenants; take() looks at a bounded number of jobs.
#pragma once

#include <array>
#include <cstdint>
#include <ext/pb_ds/assoc_container.hpp>
#include <ext/pb_ds/tree_policy.hpp>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "scheduler/jobs/job.h"
#include "scheduler/queue/tenant_weights.h"

namespace optserve::scheduler {

class FairQueue {
 public:
  enum class Verdict { kTake, kSkip, kStop, kHold };
  // What is estimated to start before a job: the tenant's own jobs before it, and what the others' shares let start
  // meanwhile, at most all that they have.
  struct Ahead {
    size_t jobs = 0;
    int64_t tokens = 0;
  };

  explicit FairQueue(const TenantWeights& weights) : weights_(weights) {}

  // The job is accepted and will be pushed once its prompt has ids. It is counted from here on.
  void expect(Job& job);
  // The job waits for a group. Its cost must not change until it has left.
  void push(Job& job);
  // The job is no longer expected or waiting; nothing happens if it is neither.
  void leave(Job& job);

  bool empty() const { return waiting_ == 0; }
  size_t waiting() const { return waiting_; }
  // Jobs that are expected or wait.
  size_t size() const { return jobs_; }
  int64_t tokens() const { return tokens_; }
  // Of the jobs that are expected or wait, the one that was accepted first; nullptr: there is none.
  const Job* oldest() const;
  int64_t tokens_of(const std::string& tenant) const;

  // Takes out the first job that `verdict` says to take. kSkip looks at the next one, kStop ends the search, kHold
  // leaves out all of this tenant and priority until release().
  template <class F>
  Job* take(Instant now, F&& verdict) {
    int looked = 0;
    for (size_t p = classes_.size(); p-- > 0;) {
      const auto& active = classes_[p].active;
      for (auto at = active.begin(); at != active.end();) {
        const Turn turn = *at++;
        auto& jobs = turn.flow->jobs;
        const bool newest_first = turn.flow->is_late(now);
        auto it = newest_first ? std::prev(jobs.end()) : jobs.begin();
        for (int of_flow = 0; of_flow < kLookaheadOfTenant; ++of_flow) {
          if (++looked > kLookahead) return nullptr;
          ++looked_at_;
          Job& job = *it->second;
          const Verdict said = verdict(job);
          if (said == Verdict::kStop) return nullptr;
          if (said == Verdict::kHold) {
            --looked;  // it is not looked at again before it is released
            hold(classes_[p], *turn.flow);
            break;
          }
          if (said == Verdict::kTake) {
            serve(classes_[p], *turn.flow, job);
            return &job;
          }
          if (newest_first ? it == jobs.begin() : std::next(it) == jobs.end()) break;
          newest_first ? --it : ++it;
        }
      }
    }
    return nullptr;
  }

  // The tenant's jobs are considered again.
  void release(const std::string& tenant);

  // What is ahead of a job that is expected or waits.
  Ahead ahead_of(const Job& job, Instant now) const;
  // What would be ahead of a job that is accepted now, if every tenant were served oldest first.
  Ahead ahead_of_new(const std::string& tenant, int32_t priority) const;

  // Calls f for about the first `count` jobs that wait, near the order in which they would start.
  template <class F>
  void for_first(size_t count, Instant now, F&& f) const {
    for (size_t p = classes_.size(); p-- > 0 && count > 0;) {
      std::vector<const Flow*> flows;
      for (const Turn& turn : classes_[p].active) {
        if (flows.size() == count) break;
        flows.push_back(turn.flow);
      }
      for (size_t place = 0; !flows.empty() && count > 0; ++place) {
        std::erase_if(flows, [&](const Flow* flow) { return flow->jobs.size() <= place; });
        for (const Flow* flow : flows) {
          if (count == 0) break;
          --count;
          const size_t rank = flow->is_late(now) ? flow->jobs.size() - 1 - place : place;
          f(*flow->jobs.find_by_order(rank)->second);
        }
      }
    }
  }

  // How many jobs decisions have looked at, in all. Tests use it to bound the cost of decisions.
  uint64_t looked_at() const { return looked_at_; }
  // How many tenants are remembered.
  size_t flows() const;

 private:
  static constexpr int kLookahead = 64;  // bounds the work of one decision
  static constexpr int kLookaheadOfTenant = 16;
  static constexpr size_t kIdleFlowsMax = 10'000;

  using Jobs = __gnu_pbds::tree<uint64_t, Job*, std::less<>, __gnu_pbds::rb_tree_tag,
                                __gnu_pbds::tree_order_statistics_node_update>;  // by order, with ranks
  // One tenant within one priority.
  struct Flow {
    std::string tenant;
    uint64_t serial = 0;
    double weight = 1;
    double tag = 0;      // virtual time at which its next job starts
    Jobs jobs;           // waiting
    size_t count = 0;    // expected and waiting
    int64_t tokens = 0;  // of those jobs
    uint64_t first = 0;  // order of its oldest waiting job; 0: none
    bool is_held = false;
    bool is_late(Instant now) const { return jobs.begin()->second->slot.hurry_at <= now; }
  };
  struct Turn {
    double tag = 0;
    uint64_t serial = 0;
    Flow* flow = nullptr;
    bool operator<(const Turn& other) const { return tag != other.tag ? tag < other.tag : serial < other.serial; }
  };
  struct Class {
    std::unordered_map<std::string, Flow> flows;
    std::set<Turn> active;  // with waiting jobs, and not held
    std::set<Turn> idle;    // without any, but ahead of the virtual time: what they used up is remembered
    double time = 0;        // virtual
    double weight = 0;      // of the flows with jobs
    size_t count = 0;
    int64_t tokens = 0;
    uint64_t next_serial = 0;
  };
  static Turn turn_of(Flow& flow) { return {flow.tag, flow.serial, &flow}; }

  Class& class_of(const Job& job) { return classes_[static_cast<size_t>(job.spec().priority)]; }
  Flow& flow_of(Class& of, const std::string& tenant);
  void count_in(Class& of, Flow& flow, Job& job);
  void count_out(Class& of, Flow& flow, Job& job);
  void note_first(Flow& flow);
  void serve(Class& of, Flow& flow, Job& job);
  static void hold(Class& of, Flow& flow);
  void remove(Class& of, Flow& flow, Job& job);
  void forget_idle(Class& of);
  Ahead ahead(size_t priority, const Flow* flow, size_t rank, double weight) const;

  const TenantWeights& weights_;
  std::array<Class, limits::kPriorityMax + 1> classes_;
  std::map<uint64_t, const Job*> expected_;  // these two by order
  std::map<uint64_t, const Job*> firsts_;    // of those that wait, the oldest of each flow
  size_t waiting_ = 0;
  size_t jobs_ = 0;
  int64_t tokens_ = 0;
  uint64_t looked_at_ = 0;
};

}  // namespace optserve::scheduler
