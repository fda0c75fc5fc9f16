// A replica is a copy of the database's pages and a log beside it. The log is a row of segments. Each holds the newest
// version of every page that the commits since the segment before have changed, under a checksum, so that the pages and
// all whole segments in order are the database as of one commit.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "journal/replica/replica_disk.h"

namespace optserve::journal {

inline constexpr size_t kReplicaPageBytes = 4096;

// A moment in the life of a journal: after a certain commit, which is on disk.
struct JournalPosition {
  std::string journal;  // 16 bytes: its id, whose first half stays when the journal is restored from a copy
  uint64_t term = 0;
  uint64_t commits = 0;
  std::string wal_salt;     // 8 bytes: the filling of the write-ahead log; empty: the log holds nothing that matters
  uint64_t wal_frames = 0;  // of that filling, up to and including the commit
  int64_t wall_ms = 0;      // when it was current, for people
};

using Pages = std::map<uint64_t, std::string>;  // by number, from 1 on

struct Segment {
  uint64_t number = 0;  // grows by one in a log
  JournalPosition position;
  bool is_complete = false;     // with this segment the replica is the journal; false while the first copy is made
  uint64_t database_pages = 0;  // size of the database; 0 if no page has changed
  Pages pages;
};

std::string encode(const Segment& segment);

// What a log holds up to the first segment that is not whole: one that was cut by a loss of power, or nothing.
struct LogEnd {
  std::optional<Segment> last;  // without its pages
  int64_t bytes = 0;            // where the next segment belongs
};
LogEnd read_log(ReplicaFile& log, const std::function<void(const Segment&)>& visit);

}  // namespace optserve::journal
