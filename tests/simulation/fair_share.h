// Judges from outside how the scheduler shares a model between tenants (I11). While two tenants have work of one
// priority waiting, what each was leased, in tokens over its weight, may drift apart by one job of each at most:
// start-time fair queueing serves the tenant with the least virtual time v, so a tenant's own time lies between v and v
// plus its greatest job over its weight, and a lease moves it by the job's cost over its weight. A retry pays like any
// other job, so it adds nothing.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/limits.h"
#include "scheduler/jobs/job_table.h"
#include "scheduler/queue/tenant_weights.h"
#include "simulation/environment.h"

namespace optserve::simulation {

class FairShare {
 public:
  explicit FairShare(const Environment& environment);
  // The scheduler's queue is a new one.
  void on_start() { classes_ = {}; }
  // `job` is leased, or ends; `jobs` are those of the scheduler. Work that waits leaves the queue in no other way, so
  // what waits on both sides of two such moments waited between them. Throws what `fail` throws.
  using Fail = std::function<void(const std::string&)>;
  void on_leased(const scheduler::JobTable& jobs, const JobId& job, const protocol::JobSpec& spec, const Fail& fail);
  void on_ended(const scheduler::JobTable& jobs, const JobId& job, const protocol::JobSpec& spec);

 private:
  struct Tenant {
    double weight = 1;
    double longest = 0;  // the greatest job that it was leased, over its weight
    bool waits = false;
    // All that waits was lost by a worker, and may have to wait for another one: others go first, and it catches up.
    bool is_passed_over = false;
  };
  // What one tenant was leased more than the other since both wait.
  struct Pair {
    double lead = 0, least = 0, most = 0;
  };
  struct Class {
    std::map<std::string, Tenant> tenants;
    std::map<std::pair<std::string, std::string>, Pair> pairs;  // both wait; the first name is the lesser one
  };

  void look(Class& of, const scheduler::JobTable& jobs, const JobId& but, int32_t priority) const;
  Tenant& tenant_of(Class& of, const std::string& name) const;
  double cost_of(const protocol::JobSpec& spec);

  const Environment& env_;
  scheduler::TenantWeights weights_;
  std::unique_ptr<model_text::ServedModel> model_;
  std::array<Class, limits::kPriorityMax + 1> classes_;
};

}  // namespace optserve::simulation
