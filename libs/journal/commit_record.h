// A small file beside the database that says how many commits are on disk. A flipped bit in the write-ahead log makes
// SQLite take what follows for a torn write and drop it without a word; the record tells that something was there.
// It is written after each commit's sync and is synced itself at checkpoints and about once a second, so it is a lower
// bound: what it does not tell from a torn write is damage to the log in the last second before a loss of power.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace optserve::journal {

class CommitRecord {
 public:
  struct Content {
    std::string journal;      // 16 bytes: which journal it speaks of
    uint64_t commits = 0;     // durable
    std::string wal_salt;     // 8 bytes: names one filling of the log; empty: nothing in it
    uint64_t wal_frames = 0;  // of that filling, durable
  };

  explicit CommitRecord(const std::string& journal_path);
  ~CommitRecord();
  CommitRecord(const CommitRecord&) = delete;
  CommitRecord& operator=(const CommitRecord&) = delete;

  // nullopt: there is none, or it is not readable; then nothing is known.
  std::optional<Content> read() const;
  void write(const Content& content);  // throws Error
  void sync();                         // throws Error; does nothing if nothing was written since the last one

  static std::string path_of(const std::string& journal_path) { return journal_path + ".commits"; }

 private:
  std::string path_;
  int fd_ = -1;
  bool is_dirty_ = false;
};

// Whether the write-ahead log beside `journal_path` holds what `known` promises, read before SQLite opens it. Throws
// DamagedError.
void check_wal(const std::string& journal_path, const std::optional<CommitRecord::Content>& known);

}  // namespace optserve::journal
