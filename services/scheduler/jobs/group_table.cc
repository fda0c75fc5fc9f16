#include "scheduler/jobs/group_table.h"

#include <algorithm>
#include <numeric>

namespace optserve::scheduler {

int64_t JobGroup::ended_total() const { return std::accumulate(ended.begin(), ended.end(), int64_t{0}); }

void GroupTable::opened(Job& job) {
  if (job.spec().group.empty()) return;
  JobGroup& group = groups_[joined(job.spec().tenant, job.spec().group)];
  group.open.emplace(job.order, &job);
  group.sequence = std::max(group.sequence, job.accepted_sequence);
}

void GroupTable::closed(Job& job, uint64_t sequence) {
  if (job.spec().group.empty()) return;
  const auto found = groups_.find(joined(job.spec().tenant, job.spec().group));
  if (found == groups_.end()) return;
  found->second.open.erase(job.order);
  found->second.sequence = std::max(found->second.sequence, sequence);
  if (found->second.open.empty() && found->second.ended_total() == 0) groups_.erase(found);
}

void GroupTable::ended(const std::string& tenant, const std::string& group, protocol::JobState state) {
  if (!group.empty()) ++groups_[joined(tenant, group)].ended.at(static_cast<size_t>(state));
}

void GroupTable::forgotten(const std::string& tenant, const std::string& group, protocol::JobState state) {
  if (group.empty()) return;
  const auto found = groups_.find(joined(tenant, group));
  if (found == groups_.end()) return;
  --found->second.ended.at(static_cast<size_t>(state));
  if (found->second.open.empty() && found->second.ended_total() == 0) groups_.erase(found);
}

const JobGroup* GroupTable::find(const std::string& tenant, const std::string& group) const {
  const auto found = groups_.find(joined(tenant, group));
  return found == groups_.end() ? nullptr : &found->second;
}

}  // namespace optserve::scheduler
