// Lists of jobs for operators: open ones are looked at in the order of the list, a bounded number in each turn.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "protocol/operator_messages.h"
#include "scheduler/jobs/job.h"
#include "transport/service.h"

namespace optserve::scheduler {

// A ListJobs that is being answered: its open jobs are found first, then the store is asked for the ended ones.
struct JobScan {
  transport::Peer peer;
  protocol::ListJobs asked;
  uint64_t position = 0;  // jobs up to, or newest first down to, this order have been looked at; 0: none
  std::vector<protocol::JobSummary> open;
  bool more = false;
  uint64_t sequence = 0;  // journal record that must be durable before the answer leaves

  bool wants_open() const { return !asked.filter.state || !protocol::is_terminal(*asked.filter.state); }
  bool wants_ended() const { return !asked.filter.state || protocol::is_terminal(*asked.filter.state); }
};

class JobLister {
 public:
  // Jobs are opened in the order of their acceptance.
  void opened(Job& job);
  void closed(const Job& job);

  void start(JobScan scan) { scans_.push_back(std::move(scan)); }
  size_t scans() const { return scans_.size(); }
  // Looks at no more than `budget` jobs, and returns the scans that have looked at all of theirs.
  std::vector<JobScan> step(size_t budget);
  // Adds one job to the scan, if its filter matches.
  static void add(JobScan& scan, const Job& job);

 private:
  // The job to look at next; nullptr: all were.
  const Job* next(const JobScan& scan) const;

  struct Place {
    uint64_t order = 0;
    const Job* job = nullptr;  // nullptr: it is closed
  };
  std::deque<Place> by_order_;  // neither begins nor ends with a closed job
  size_t closed_ = 0;           // places of it that are of closed jobs
  std::deque<JobScan> scans_;
};

// Open and ended jobs, both in the order that is asked for, as one list of at most asked.limit. A job that is in both
// is shown as ended.
protocol::JobList merged_list(std::vector<protocol::JobSummary> open, std::vector<protocol::JobSummary> ended,
                              const protocol::ListJobs& asked);

}  // namespace optserve::scheduler
