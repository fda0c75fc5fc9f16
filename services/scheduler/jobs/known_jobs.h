// Where jobs are found other than by their stage: by idempotency key, by group, in the order of lists, and among recent
// results.
#pragma once

#include "journal/job_store.h"
#include "scheduler/jobs/finished_jobs.h"
#include "scheduler/jobs/group_table.h"
#include "scheduler/operators/job_lister.h"
#include "scheduler/scheduler_metrics.h"
#include "scheduler/scheduler_options.h"

namespace optserve::scheduler {

class KnownJobs {
 public:
  KnownJobs(const SchedulerOptions& options, SchedulerMetrics& metrics)
      : metrics_(metrics), results_(options.recent_bytes_max), keys_(options.known_keys_max) {}

  // The keys of ended jobs that the journal knows.
  void recover(std::vector<journal::KnownKey> keys);
  void opened(Job& job);
  // The job ends with this result, whose journal record has the number `sequence`.
  void ended(Job& job, const SharedResult& result, uint64_t sequence, int64_t expires_at_ms);
  // The ended job is put back into the queue: its result is void.
  void put_back(const JobId& job) { results_.forget(job); }
  // The journal has forgotten these ended jobs.
  void purged(const journal::KnownKey& known);
  void expire(int64_t now_ms);

  const RecentResults& results() const { return results_; }
  const IdempotencyKeys& keys() const { return keys_; }
  const GroupTable& groups() const { return groups_; }
  JobLister& lister() { return lister_; }

 private:
  void add_key(const std::string& tenant, const std::string& key, IdempotencyKeys::Entry entry);
  // Groups count an ended job only as long as its key is known.
  void forget_group_members();

  SchedulerMetrics& metrics_;
  RecentResults results_;
  IdempotencyKeys keys_;
  GroupTable groups_;
  JobLister lister_;
};

}  // namespace optserve::scheduler
