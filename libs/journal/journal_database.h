// The journal's file: schema, recovery, and the SQL of each record. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "journal/journal.h"
#include "journal/sqlite.h"

namespace optserve::journal {

// flock on a side file: says "another process" before SQLite is asked, and survives nothing but the process.
class LockFile {
 public:
  explicit LockFile(const std::string& path);
  ~LockFile();
  LockFile(const LockFile&) = delete;
  LockFile& operator=(const LockFile&) = delete;

 private:
  int fd_ = -1;
};

class JournalDatabase {
 public:
  // Opens or creates, checks, raises the term and recovers; see Journal::open().
  JournalDatabase(const JournalOptions& options, int64_t now_wall_ms, Recovery& recovery);

  // One transaction; on return the records are on disk.
  void commit(std::span<const Record> records);
  std::optional<protocol::JobResult> find_result(const JobId& job, int64_t now_wall_ms);
  // Removes up to `limit` expired results; returns how many.
  int64_t purge_expired(int64_t now_wall_ms, int64_t limit);
  // Moves what is in the write-ahead log to the database file.
  void checkpoint();
  int64_t wal_bytes() const { return wal_pages_ * kPageBytes; }

 private:
  static constexpr int64_t kPageBytes = 4096;

  void configure(const JournalOptions& options);
  void check_or_create_schema();
  void raise_term(Recovery& recovery);
  void recover_open_jobs(Recovery& recovery);
  void recover_keys(int64_t now_wall_ms, Recovery& recovery);
  void prepare();

  void apply(const Accepted& record);
  void apply(const Leased& record);
  void apply(const Progress& record);
  void apply(const Finished& record);
  void apply(const Requeued& record);
  void apply(const ModeSet& record);

  struct Statements;

  LockFile lock_;
  Database database_;
  std::shared_ptr<Statements> statements_;
  int64_t wal_pages_ = 0;
};

// Throws Error if `path` exists and is anything but a regular file that may be a journal; creates it as 0600.
void prepare_journal_file(const std::string& path);

}  // namespace optserve::journal
