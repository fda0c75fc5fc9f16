// An append-only file of records, written by a thread of its own: write() waits for nobody. Bounded: a file that is
// full becomes path.1, path.1 becomes path.2 and so on, and the oldest is removed.
//
// A record is in the file, synced, a moment after write(). What cannot be written waits and is tried again each second;
// beyond `waiting_max` it is lost, which is logged and counted. Nothing of this throws or ends the process: an action
// is not held up because its record cannot be written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "audit/audit_record.h"
#include "base/clock.h"

namespace optserve::audit {

inline constexpr size_t kFileBytesMax = 8 << 20;
inline constexpr size_t kFilesMax = 8;  // the file itself among them: 64 MiB in all

struct LogOptions {
  std::string path;
  size_t file_bytes_max = kFileBytesMax;
  size_t files_max = kFilesMax;
  size_t waiting_max = 4'096;
  milliseconds retry_pause{1'000};
  // Called on the log's thread, on_lost also by write(): records that are on disk, an attempt that failed, and records
  // that are lost. May be empty.
  std::function<void(size_t records)> on_written{};
  std::function<void()> on_failed{};
  std::function<void(size_t records)> on_lost{};
};

class Log {
 public:
  explicit Log(LogOptions options);
  ~Log();  // what waits is tried once more
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  void write(Record record);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What the files of a log hold, while it is written or not.
struct Listing {
  std::vector<Record> records;  // newest first
  uint64_t unreadable = 0;      // lines that are no records: cut by a loss of power, or changed by somebody
};
// The newest `limit` records of several logs, in the order of their times; those of one log stay in their order. Throws
// Error for a log that is not there.
Listing read_logs(const std::vector<std::string>& paths, size_t limit, size_t files_max = kFilesMax);

}  // namespace optserve::audit
