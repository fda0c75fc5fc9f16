// Makes copies of the journal while it works: some pages at a time between two commits, in the journal's thread and
// over its connection, so that SQLite adds to the copy what is committed in the meantime. A separate thread checks,
// syncs and renames the finished copy.
#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "journal/job_store.h"
#include "journal/journal.h"
#include "journal/sqlite/sqlite.h"

namespace optserve::journal {

class Backups {
 public:
  Backups(const JournalOptions& options, Instant now, Database& source);
  ~Backups();  // deletes a copy that is not finished
  Backups(const Backups&) = delete;
  Backups& operator=(const Backups&) = delete;

  void ask(uint64_t request) { asked_.push_back(request); }
  // Starts a backup that was requested or is due (but not while `is_full`, since it would take the last room), and
  // copies some pages. Adds the answers for a backup that has ended to `answers`. If a backup fails, this is answered
  // and logged, and the journal goes on. `wall_ms` is for the name of the file.
  void step(Instant now, int64_t wall_ms, bool is_full, std::vector<Answer>& answers);
  bool is_copying() const { return copy_ != nullptr; }
  bool is_under_way() const { return copy_ != nullptr || outcome_.valid(); }

 private:
  struct Finish {
    void operator()(sqlite3_backup* backup) const { sqlite3_backup_finish(backup); }
  };
  void start(Instant now, int64_t wall_ms);
  void copy_pages();
  void take_outcome(std::vector<Answer>& answers);
  void fail(const std::string& why);
  std::string file(const std::string& name) const { return folder_ + "/" + name; }

  Database& source_;
  const std::string folder_;
  const milliseconds interval_;  // 0: only when asked
  const size_t kept_;
  Instant due_{};
  std::vector<uint64_t> asked_;      // for the next backup
  std::vector<uint64_t> under_way_;  // for the current backup
  std::string name_;
  std::unique_ptr<Database> target_;
  std::unique_ptr<sqlite3_backup, Finish> copy_;  // destroyed before its target
  std::future<Result<BackUpDone>> outcome_;
};

}  // namespace optserve::journal
