// The files of a replica in its folder, each name beginning with the number of a copy:
//   N.pages    the database's pages, as they were when the log was begun or later
//   N.log      segments (segment.h); the last whole one says which commit the replica has
//   N.log.new  a log that is being begun
//   replica.lock
// A copy is complete from its first segment on that says so. Until then the copy before it stays.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "journal/replica/replica_disk.h"
#include "journal/replica/segment.h"

namespace optserve::journal {

// The newest complete copy in a folder, or else the newest that has begun.
struct FoundReplica {
  uint64_t copy = 0;
  Segment last;  // without its pages
};
std::optional<FoundReplica> find_replica(ReplicaDisk& disk);

// Writes the segments of a log over the pages.
LogEnd apply_log(ReplicaFile& log, ReplicaFile& pages);

std::string pages_name(uint64_t copy);
std::string log_name(uint64_t copy);

// Writes one copy. Throws Error; then the object must be closed and what is on the disk found again.
class ReplicaFolder {
 public:
  explicit ReplicaFolder(ReplicaDisk& disk) : disk_(disk) {}

  // Goes on with a complete copy: cuts off what is not whole, and folds. False if the log does not end with `found`.
  bool resume(const FoundReplica& found);
  // Begins a copy beside what is there, which stays until the copy is complete.
  void begin();
  void write_pages(std::string_view bytes, int64_t at) { pages_->write_at(bytes, at); }
  void sync_pages() { pages_->sync(); }
  // On return the segment is on disk. Gives it its number. The first complete segment ends the copies before.
  void append(Segment segment);
  // Moves the log's content to the pages and begins the log again.
  void fold();

  bool is_open() const { return log_ != nullptr; }
  void close();
  void discard();  // closes, and removes what begin() has begun
  int64_t log_bytes() const { return log_bytes_; }
  std::string first_page() { return pages_->read_at(kReplicaPageBytes, 0); }

 private:
  void remove_all_but(uint64_t copy);

  ReplicaDisk& disk_;
  uint64_t copy_ = 0;
  std::unique_ptr<ReplicaFile> pages_, log_;
  int64_t log_bytes_ = 0;
  Segment last_;  // without its pages; number 0: none
};

}  // namespace optserve::journal
