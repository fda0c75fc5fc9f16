// Job groups: which of their jobs are open, and how the others ended. A group exists as long as it has an open job, or
// an ended job that is still known by its key, so the bounds of jobs and keys bound this table as well.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>

#include "scheduler/jobs/job.h"

namespace optserve::scheduler {

struct JobGroup {
  std::map<uint64_t, Job*> open;   // by order of acceptance
  std::array<int64_t, 8> ended{};  // by JobState
  uint64_t sequence = 0;           // journal record of the last change
  int64_t ended_total() const;
};

// All calls ignore jobs without a group.
class GroupTable {
 public:
  void opened(Job& job);
  void closed(Job& job, uint64_t sequence);
  // A job of the group ended, and its result is kept.
  void ended(const std::string& tenant, const std::string& group, protocol::JobState state);
  // The result of such a job is not kept any longer.
  void forgotten(const std::string& tenant, const std::string& group, protocol::JobState state);
  const JobGroup* find(const std::string& tenant, const std::string& group) const;
  size_t size() const { return groups_.size(); }

 private:
  // Neither part holds a '/'.
  static std::string joined(const std::string& tenant, const std::string& group) { return tenant + '/' + group; }
  std::unordered_map<std::string, JobGroup> groups_;
};

}  // namespace optserve::scheduler
