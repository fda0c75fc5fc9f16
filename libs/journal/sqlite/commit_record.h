// A small file beside the database that says how many commits are on disk. If a bit of the write-ahead log flips,
// SQLite takes everything after it for an interrupted write and silently drops it; the record shows that something was
// there. It is written after the sync of each commit, and is itself synced at checkpoints and about once a second. So
// it is a lower bound: damage to what the log got in the last second before a loss of power looks like an interrupted
// write.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace optserve::journal {

class CommitRecord {
 public:
  struct Content {
    std::string journal;      // 16 bytes: the id of the journal that it belongs to
    uint64_t commits = 0;     // durable
    std::string wal_salt;     // 8 bytes: changes whenever the log is filled anew; empty: the log is empty
    uint64_t wal_frames = 0;  // durable frames of the log since then
  };

  explicit CommitRecord(const std::string& journal_path);
  ~CommitRecord();
  CommitRecord(const CommitRecord&) = delete;
  CommitRecord& operator=(const CommitRecord&) = delete;

  // nullopt if there is no record or it cannot be read; then nothing is known.
  std::optional<Content> read() const;
  void write(const Content& content);  // throws Error
  void sync();                         // throws Error; does nothing if nothing was written since the last one

  static std::string path_of(const std::string& journal_path) { return journal_path + ".commits"; }

 private:
  std::string path_;
  int fd_ = -1;
  bool is_dirty_ = false;
};

// Checks, before SQLite opens it, that the write-ahead log beside `journal_path` holds what `known` promises. Throws
// DamagedError.
void check_wal(const std::string& journal_path, const std::optional<CommitRecord::Content>& known);

}  // namespace optserve::journal
