#include "scheduler/tenants/running_jobs.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace optserve::scheduler {

bool RunningJobs::has_room(const std::string& tenant, int64_t running) const {
  return !limits_.is_on() || running < limits_.quotas()->of(tenant).running;
}

bool RunningJobs::may_begin(const std::string& tenant, ModelQueue& queue) {
  if (!limits_.is_on() || has_room(tenant, of(tenant))) return true;
  std::vector<ModelQueue*>& held = tenants_[tenant].held;
  // This queue may already hold the tenant's jobs of other priorities.
  if (std::find(held.begin(), held.end(), &queue) == held.end()) held.push_back(&queue);
  return false;
}

void RunningJobs::release(const std::string& tenant, Tenant& of) {
  for (ModelQueue* queue : std::exchange(of.held, {})) {
    queue->jobs.release(tenant);
    queues_.want(*queue);
  }
}

void RunningJobs::ended(const std::string& tenant) {
  const auto found = tenants_.find(tenant);
  Tenant& of = found->second;
  --of.running;
  if (has_room(tenant, of.running)) release(tenant, of);
  if (of.running == 0 && of.held.empty()) tenants_.erase(found);
}

void RunningJobs::release_all() {
  for (auto it = tenants_.begin(); it != tenants_.end();) {
    release(it->first, it->second);
    it = it->second.running == 0 ? tenants_.erase(it) : std::next(it);
  }
}

int64_t RunningJobs::of(const std::string& tenant) const {
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? 0 : found->second.running;
}

}  // namespace optserve::scheduler
