// The durable record of jobs: one connection to a database, in one thread, with group commit. The database is an SQLite
// file (WAL, synchronous=FULL), or a schema in PostgreSQL, which has one leading scheduler and any number of standbys.
// append() returns at once with a sequence number; the record is on disk once durable() has reached it. A failed write
// or sync is final (a failed sync must not be retried): from then on append() and durable() throw Error, which ends the
// process; after a restart only what is on disk counts.
//
// A full disk is not final. is_full() becomes true, and a reserve file is deleted so that existing jobs can end.
// Records for which there is still no room wait and are tried again; nothing that was appended is lost while the
// process lives. is_full() becomes false once there is room for the reserve file again.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "journal/job_store.h"

namespace optserve::journal {

// How well the replica of the journal keeps up.
struct ReplicaState {
  Duration behind{};        // since the oldest commit that it lacks; 0: it has everything
  bool is_failing = false;  // its folder cannot be written
  bool is_seeding = false;  // it is not complete: the database is being copied
};

// The state of the journal, for metrics.
struct JournalState {
  int64_t bytes = 0;      // of the database
  int64_t log_bytes = 0;  // of its write-ahead log, whose space is reused
  int64_t disk_free_bytes = 0;
  bool is_full = false;
  int64_t last_backup_wall_s = 0;  // 0: there is none
  ReplicaState replica{};          // as it is without one
};

struct JournalOptions {
  std::string path;  // database file; its folder must exist on a local disk. Or the URL of a PostgreSQL database
  size_t batch_records_max = 256;
  size_t batch_bytes_max = 1 << 20;
  size_t queue_records_max = 4096;              // is_congested() is true above
  int64_t checkpoint_bytes = 64 << 20;          // a larger write-ahead log is checkpointed at once, others when idle
  int64_t database_bytes_max = 0;               // 0: as much as the disk holds
  int64_t reserve_bytes = 64 << 20;             // room kept for a full disk, beyond database_bytes_max; 0: none
  milliseconds dead_ttl{7LL * 24 * 3'600'000};  // dead jobs are kept at least this long, whatever their result_ttl_ms
  std::string backup_folder{};                  // must exist, preferably on another disk; "": no backups
  milliseconds backup_interval{3'600'000};      // 0: only when asked
  size_t backups_kept = 24;                     // older ones are removed
  // Folder that gets every commit about half a second later; must exist, on another disk; "": no replica. Not for
  // PostgreSQL.
  std::string replica_folder{};
  milliseconds replica_interval{500};  // between writes to it
  std::string boot{};                  // boot_id(); "": time without a running process does not count
  uint64_t term_above = 0;             // the term of this start is above this one too

  // Options of a journal in PostgreSQL.
  std::string queue = "optserve";  // its schema
  std::string holder{};            // names this process to people who ask which scheduler leads
  milliseconds outage_max{5'000};  // without the database, after which the journal fails and lets a standby take over
  // Called about every 100 ms, with the reason, while another process leads or the database does not answer. Returning
  // false ends the wait with Error. If it is empty, open() does not wait.
  std::function<bool(const std::string& why)> stand_by{};
  // Both are called on the journal's thread and may be empty: on_commit after each commit, with the number of records
  // and the time that it took, and on_state once a second.
  std::function<void(size_t records, Duration time)> on_commit{};
  std::function<void(const JournalState& state)> on_state{};
};

bool is_postgres_url(const std::string& path);
// Throws ConfigurationError for a URL that libpq cannot read, and for one with a password, since every user of a
// machine sees command lines.
void check_journal_url(const std::string& url);

class Journal final : public JobStore {
 public:
  // Takes an exclusive lock, checks every page and row, upgrades an older schema (keeping a copy of the file beside it
  // as <path>.v1.bak or .v2.bak), raises the term, and recovers. Throws Error for a file that another process has open,
  // and for one that is damaged, of another program or of a newer version; the message says what to do, and names the
  // latest backup if there is one. The clock outlives the journal.
  static std::unique_ptr<Journal> open(const JournalOptions& options, const Clock& clock, Recovery& recovery);
  ~Journal() override;  // commits what was appended, unless the disk is full, then closes

  uint64_t append(Record record) override;  // throws Error after a failed write
  uint64_t durable() const override;        // throws Error after a failed write
  bool is_durable() const override { return true; }
  int64_t time_ms(Instant now) const override;
  bool is_congested() const override;
  bool is_full() const override;
  // A list may include jobs that end while it is made, and a purge includes jobs that end before it is finished. While
  // records wait for room on the disk, questions that were asked after them are refused (kStorageFull).
  void ask(uint64_t request, Question question) override;
  std::vector<Answer> poll_answers() override;

  uint64_t fenced() const;   // ignored results, whose token was not that of the job's lease
  uint64_t purged() const;   // results that have expired and were removed
  int hand_over_fd() const;  // eventfd, readable when the process must end in order, so that a standby leads
  int event_fd() const;      // eventfd, readable when durable() moved or the journal failed
  int answers_fd() const;    // eventfd, readable when poll_answers() has answers

 private:
  struct Impl;
  explicit Journal(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// --- for the command line, while no scheduler runs

// What a journal or a backup holds.
struct JournalSummary {
  int64_t schema_version = 0;
  uint64_t term = 0;
  uint64_t next_order = 0;
  int64_t open = 0, ended = 0, dead = 0;  // dead jobs count as ended too
  int64_t oldest_open_wall_ms = 0;        // when the oldest open job was accepted; 0: none is open
  int64_t bytes = 0;
  std::string damage;    // what the integrity check found; "": no damage
  std::string holder{};  // of a queue in PostgreSQL: which scheduler leads
};
// Changes nothing on disk. Throws Error if a scheduler has the journal open, or if the file is not a journal.
JournalSummary inspect_journal(const std::string& path);

// Replaces the journal at `path` by a copy of a backup. Throws Error if the backup is damaged, if a scheduler has the
// journal open, or if there is a journal that is not empty and `replace` is false. A replaced journal is kept as
// <path>.replaced (with its log, <path>.replaced-wal). The backup does not contain what happened after it was made:
// jobs that have ended since then run again, and jobs that were accepted since then are unknown, so that they run if a
// client submits them again with the same key.
void restore_journal(const std::string& backup, const std::string& path, bool replace);

// The same from the folder of a replica (JournalOptions::replica_folder), up to the last commit that it has whole.
struct RestoredReplica {
  int64_t wall_ms = 0;  // when the journal was as it is now
};
RestoredReplica restore_replica(const std::string& folder, const std::string& path, bool replace);
// Whether a folder has a replica, whole or not.
bool holds_replica(const std::string& folder);

// The newest backup in a folder; "" if there is none.
std::string latest_backup(const std::string& folder);

// --- for a queue in PostgreSQL. Each throws Error if the database does not answer.

// Makes the queue's schema, and gives `roles` the right to use it but no more. Throws Error if it already exists and no
// role is given.
void init_queue(const std::string& url, const std::string& queue, const std::vector<std::string>& roles);
// False if it already has the current version.
bool upgrade_queue(const std::string& url, const std::string& queue);
// Reads every row as of a single moment, even while schedulers run.
JournalSummary inspect_queue(const std::string& url, const std::string& queue);
// Makes the leader end in order; true once another scheduler leads. Throws Error if there is no leader.
bool hand_over_queue(const std::string& url, const std::string& queue, Duration patience);

}  // namespace optserve::journal
