// Reads a journal's files beside the SQLite connection that writes them, for a replica. The connection's thread sees to
// it that frames of the log are not overwritten before they were read.
#pragma once

#include <cstdint>
#include <string>

#include "journal/replica/segment.h"

namespace optserve::journal {

class JournalReader {
 public:
  // Keeps the database's file open. Must outlive the connection: closing any descriptor of a file ends all POSIX locks
  // that the process holds on it, SQLite's too.
  explicit JournalReader(const std::string& path);
  ~JournalReader();
  JournalReader(const JournalReader&) = delete;
  JournalReader& operator=(const JournalReader&) = delete;

  // Puts the newest version of each page in frames `from` (inclusive) to `to.wal_frames` of the write-ahead log into
  // `pages`, and returns the size of the database in pages. Throws Error if a frame belongs to another filling.
  uint64_t read_log(const JournalPosition& to, uint64_t from, Pages& pages) const;

  int64_t database_bytes() const;
  // A part of the database's file as it is at this moment, perhaps in the middle of a checkpoint; less at its end.
  std::string read_database(int64_t at, size_t size) const;

 private:
  const std::string path_;
  int fd_ = -1;
};

}  // namespace optserve::journal
