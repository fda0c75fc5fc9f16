// What the journal tells, as metrics. Called on the journal's thread.
#pragma once

#include "journal/journal.h"
#include "metrics/metrics.h"

namespace optserve::scheduler {

class JournalMetrics {
 public:
  explicit JournalMetrics(metrics::Registry& registry);

  void on_commit(size_t records, Duration time) const;
  void on_state(const journal::JournalState& state) const;

 private:
  metrics::Histogram commit_seconds_, commit_records_;
  metrics::Gauge bytes_, log_bytes_, disk_free_bytes_, full_, last_backup_, replica_behind_, replica_failing_;
};

}  // namespace optserve::scheduler
