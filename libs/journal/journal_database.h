// The journal's file: recovery, and the SQL of each record and each question. Used by one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/lasting_time.h"
#include "journal/journal.h"
#include "journal/journal_files.h"
#include "journal/journal_storage.h"
#include "journal/replica/segment.h"
#include "journal/sqlite/commit_record.h"
#include "journal/sqlite/sqlite.h"

namespace optserve::journal {

class JournalDatabase {
 public:
  // Opens or creates the file, checks it, raises the term and recovers; see Journal::open().
  JournalDatabase(const JournalOptions& options, Instant now, Recovery& recovery);
  ~JournalDatabase();
  JournalDatabase(const JournalDatabase&) = delete;
  JournalDatabase& operator=(const JournalDatabase&) = delete;

  // One transaction; on return the records are on disk. After SqliteError with SQLITE_FULL nothing has changed, and the
  // same records may be given again. Every other error is final.
  void commit(std::span<const Record> records, Instant now);
  void merge(const MergeStep& step, Instant now);  // like commit()
  uint64_t fenced() const { return fenced_; }      // ignored results, whose token was not that of the job's lease

  // Questions throw DamagedError for a row that does not match its checksum.
  ResultFound find_result(const JobId& job, Instant now);
  DeadFound find_dead(const JobId& job, Instant now);
  template <class Item>
  using Part = EndedPart<Item>;
  Part<protocol::JobSummary> list_ended(const ListEnded& question, uint32_t window, Instant now);
  Part<KnownKey> purge_ended(const protocol::JobFilter& filter, uint64_t after, uint32_t window, Instant now);
  // Removes up to `limit` expired results; returns how many.
  int64_t purge_expired(Instant now, int64_t limit);

  // Moves the content of the write-ahead log to the database file; kTruncate also returns the log's space to the disk.
  // If the disk is full, the rest stays in the log.
  enum class Checkpoint { kPassive, kTruncate };
  void checkpoint(Checkpoint how = Checkpoint::kPassive);
  int64_t wal_bytes() const { return wal_pages_ * kPageBytes; }
  void sync_commit_record() { commit_record_.sync(); }

  // If the database has a size limit, sets whether it may use the reserve beyond that limit.
  void lift_limit(bool lift);
  bool has_room();
  Database& connection() { return database_; }
  JournalPosition position() const;
  uint64_t commits_found() const { return commits_found_; }  // before the constructor wrote anything
  const LastingTime& time() const { return *time_; }

 private:
  static constexpr int64_t kPageBytes = 4096;
  class Transaction;
  struct Statements;
  struct Window;

  void open(const JournalOptions& options);
  void configure(const JournalOptions& options);
  void read_meta(const JournalOptions& options);
  void check_commits(const std::optional<CommitRecord::Content>& known) const;
  void recover(Recovery& recovery);
  void recover_open_jobs(Recovery& recovery);
  void recover_ended(Recovery& recovery);
  void recover_modes(Recovery& recovery);
  void write_commit_record();

  void apply(const Accepted& record);
  void apply(const Leased& record);
  void apply(const Progress& record);
  void apply(const Finished& record);
  void apply(const Requeued& record);
  void apply(const ModeSet& record);
  void change(const std::function<void()>& changes, Instant now);
  void add_loss(int64_t seq, const std::string& loss);
  std::string spec_of(int64_t seq);
  Window look(const protocol::JobFilter& filter, uint64_t after, uint32_t window, bool newest_first);

  FileLock lock_;
  CommitRecord commit_record_;
  Database database_;
  const int64_t limit_pages_;    // 0: none
  const int64_t reserve_pages_;  // beyond the limit
  const int64_t dead_ttl_ms_;
  std::unique_ptr<Statements> statements_;
  std::string id_;
  uint64_t term_ = 0;
  uint64_t commits_ = 0;
  uint64_t commits_found_ = 0;
  int64_t next_seq_ = 1;
  Instant now_;                      // of the current call
  std::optional<LastingTime> time_;  // once the meta row was read
  uint64_t fenced_ = 0;
  int64_t wal_pages_ = 0;
  std::string wal_salt_;  // of the current filling of the log
  int64_t wal_pages_seen_ = 0;
};

}  // namespace optserve::journal
