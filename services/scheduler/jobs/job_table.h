// All open jobs: by id, and by the moment their time runs out.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "scheduler/jobs/job.h"

namespace optserve::scheduler {

class JobTable {
 public:
  Job& add(std::unique_ptr<Job> job, Instant deadline);
  Job* find(const JobId& id) const;
  size_t size() const { return jobs_.size(); }
  void set_deadline(Job& job, Instant deadline);
  // A job whose deadline is over, or nullptr.
  Job* expired(Instant now) const;
  void set_stage(Job& job, Stage stage);
  size_t count(Stage stage) const { return counts_[static_cast<size_t>(stage)]; }
  // The job leaves the table; pointers to it stay valid until clear_ended().
  void end(Job& job);
  void clear_ended() { ended_.clear(); }
  template <class F>
  void for_each(F&& f) const {
    for (auto& [id, job] : jobs_) f(*job);
  }

 private:
  std::unordered_map<JobId, std::unique_ptr<Job>> jobs_;
  std::multimap<Instant, Job*> deadlines_;
  std::array<size_t, 5> counts_{};
  std::vector<std::unique_ptr<Job>> ended_;
};

}  // namespace optserve::scheduler
