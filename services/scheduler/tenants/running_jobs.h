// How many jobs of each tenant run, and which queues hold its jobs back because it may not run more.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "scheduler/queue/model_queues.h"
#include "scheduler/tenants/tenant_limits.h"

namespace optserve::scheduler {

class RunningJobs {
 public:
  RunningJobs(const TenantLimits& limits, ModelQueues& queues) : limits_(limits), queues_(queues) {}

  void began(const std::string& tenant) { ++tenants_[tenant].running; }
  // Releases the tenant's jobs in the queues if it may run another one.
  void ended(const std::string& tenant);
  // Whether another job of the tenant may run. False: `queue` has to hold them until then.
  bool may_begin(const std::string& tenant, ModelQueue& queue);
  // The quotas have changed.
  void release_all();
  int64_t of(const std::string& tenant) const;

 private:
  struct Tenant {
    int64_t running = 0;
    std::vector<ModelQueue*> held;
  };
  bool has_room(const std::string& tenant, int64_t running) const;
  void release(const std::string& tenant, Tenant& of);

  const TenantLimits& limits_;
  ModelQueues& queues_;
  std::unordered_map<std::string, Tenant> tenants_;  // with running jobs or held ones
};

}  // namespace optserve::scheduler
