// All open jobs: by id, by the moment their time runs out, and by the moment their delay ends. Every move of a job's
// life goes through here.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "scheduler/jobs/job.h"
#include "scheduler/jobs/parked_jobs.h"

namespace optserve::scheduler {

class JobTable {
 public:
  // Takes in a job in Stage::kAccepted, whose times are set.
  Job& add(std::unique_ptr<Job> job);
  Job* find(const JobId& id) const;
  size_t size() const { return jobs_.size(); }
  size_t count(Stage stage) const { return counts_[static_cast<size_t>(stage)]; }
  template <class F>
  void for_each(F&& f) const {
    for (auto& [id, job] : jobs_) f(*job);
  }

  // Numbers of jobs in the order of acceptance.
  uint64_t take_order() { return next_order_++; }
  uint64_t next_order() const { return next_order_; }
  void set_next_order(uint64_t order) { next_order_ = order; }

  // --- moves (job_life.h); one that is not allowed fails a check

  void move(Job& job, Stage to);
  // To Stage::kDelayed.
  void delay(Job& job, Instant until);
  // A job whose delay is over, or nullptr; it is not found again, and has to be moved.
  Job* take_undelayed(Instant now);
  // To Stage::kEnded: the job leaves the table; pointers to it stay valid until clear_ended().
  void end(Job& job);
  void clear_ended() { ended_.clear(); }

  // --- memory

  ParkedJobs& parked() { return parked_; }
  const ParkedJobs& parked() const { return parked_; }

  // --- limits of time

  // The job got or lost its lease, so another of its limits may be the next.
  void update_deadline(Job& job);
  // A job whose deadline is over, or nullptr.
  Job* expired(Instant now) const;

 private:
  ParkedJobs parked_;
  std::unordered_map<JobId, std::unique_ptr<Job>> jobs_;
  std::multimap<Instant, Job*> deadlines_;
  std::map<std::pair<Instant, uint64_t>, Job*> delayed_;  // by time and order
  std::array<size_t, kStages> counts_{};
  std::vector<std::unique_ptr<Job>> ended_;
  uint64_t next_order_ = 1;
};

}  // namespace optserve::scheduler
