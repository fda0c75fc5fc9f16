#include "scheduler/jobs/job_table.h"

#include <utility>

#include "base/check.h"

namespace optserve::scheduler {

Job& JobTable::add(std::unique_ptr<Job> job, Instant deadline) {
  Job& added = *job;
  added.deadline = deadlines_.emplace(deadline, &added);
  ++counts_[static_cast<size_t>(added.stage)];
  const bool is_new = jobs_.emplace(added.id, std::move(job)).second;
  check(is_new, "two jobs with one id");
  return added;
}

Job* JobTable::find(const JobId& id) const {
  const auto found = jobs_.find(id);
  return found == jobs_.end() ? nullptr : found->second.get();
}

void JobTable::set_deadline(Job& job, Instant deadline) {
  if (job.deadline->first == deadline) return;
  auto node = deadlines_.extract(job.deadline);
  node.key() = deadline;
  job.deadline = deadlines_.insert(std::move(node));
}

Job* JobTable::expired(Instant now) const {
  return deadlines_.empty() || deadlines_.begin()->first > now ? nullptr : deadlines_.begin()->second;
}

void JobTable::set_stage(Job& job, Stage stage) {
  --counts_[static_cast<size_t>(job.stage)];
  job.stage = stage;
  ++counts_[static_cast<size_t>(stage)];
}

void JobTable::end(Job& job) {
  --counts_[static_cast<size_t>(job.stage)];
  deadlines_.erase(job.deadline);
  job.ended = true;
  const auto found = jobs_.find(job.id);
  check(found != jobs_.end(), "the job that ends is in the table");
  ended_.push_back(std::move(found->second));
  jobs_.erase(found);
}

}  // namespace optserve::scheduler
