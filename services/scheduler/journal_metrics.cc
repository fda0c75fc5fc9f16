#include "scheduler/journal_metrics.h"

#include <chrono>

namespace optserve::scheduler {

JournalMetrics::JournalMetrics(metrics::Registry& registry)
    : commit_seconds_(
          registry.histogram("optserve_journal_commit_seconds", "Time of a commit of the journal, until it is on disk",
                             {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10})),
      commit_records_(registry.histogram("optserve_journal_commit_records", "Records of a commit of the journal",
                                         {1, 2, 4, 8, 16, 32, 64, 128, 256})),
      bytes_(registry.gauge("optserve_journal_bytes", "Size of the journal's database")),
      log_bytes_(registry.gauge("optserve_journal_log_bytes", "Size of the journal's write-ahead log")),
      disk_free_bytes_(registry.gauge("optserve_journal_disk_free_bytes", "Room on the disk of the journal")),
      full_(registry.gauge("optserve_journal_disk_full", "1 while no job is accepted because the disk is full")),
      last_backup_(
          registry.gauge("optserve_journal_last_backup_timestamp_seconds",
                         "When the latest copy of the journal was finished, in seconds since 1970; 0: there is "
                         "none")),
      replica_behind_(registry.gauge("optserve_journal_replica_behind_seconds",
                                     "Age of the oldest commit that --journal-replica lacks; 0: it has everything")),
      replica_failing_(registry.gauge("optserve_journal_replica_failing",
                                      "1 while the folder of --journal-replica cannot be written")) {}

void JournalMetrics::on_commit(size_t records, Duration time) const {
  commit_seconds_.observe(std::chrono::duration<double>(time).count());
  commit_records_.observe(static_cast<double>(records));
}

void JournalMetrics::on_state(const journal::JournalState& state) const {
  bytes_.set(static_cast<double>(state.bytes));
  log_bytes_.set(static_cast<double>(state.log_bytes));
  disk_free_bytes_.set(static_cast<double>(state.disk_free_bytes));
  full_.set(state.is_full ? 1 : 0);
  last_backup_.set(static_cast<double>(state.last_backup_wall_s));
  replica_behind_.set(std::chrono::duration<double>(state.replica.behind).count());
  replica_failing_.set(state.replica.is_failing ? 1 : 0);
}

}  // namespace optserve::scheduler
