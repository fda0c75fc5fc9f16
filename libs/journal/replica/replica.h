// Keeps the copy of a journal in another folder up with the journal: which frames of the write-ahead log were read,
// what of them waits to be written, and when the whole database must be copied anew because the two have lost each
// other.
//
// The first copy needs no standstill. It begins at a position of the journal: everything in the write-ahead log at that
// moment goes into the replica's log, then the database's file is copied as it is read, while checkpoints change it and
// further segments follow. A page that was read too old, too new or torn is one that a checkpoint wrote meanwhile, so
// its frame is in a segment, and the segments win. That holds as long as no frame was overwritten before it was read.
#pragma once

#include <cstdint>
#include <string>

#include "journal/replica/journal_reader.h"
#include "journal/replica/replica_folder.h"

namespace optserve::journal {

struct ReplicaLimits {
  int64_t log_bytes = 32 << 20;             // a longer log is folded into the pages
  int64_t copy_bytes = 4 << 20;             // of the database, a step of the first copy
  size_t waiting_bytes = size_t{64} << 20;  // of pages that cannot be written; with more, the database is copied anew
};

// Used by one thread. Functions that write throw Error; call failed() then.
class Replica {
 public:
  Replica(ReplicaDisk& disk, const JournalReader& journal, ReplicaLimits limits)
      : disk_(disk), journal_(journal), limits_(limits), folder_(disk) {}

  // Finds what the folder has, and goes on with it if it lacks nothing that is not in the write-ahead log: the journal
  // is at `now`, and was at `commits_found` when it was opened. Otherwise must_seed() is true. Throws
  // ConfigurationError if the folder has the replica of another journal, or of a later life of this one.
  void attach(const JournalPosition& now, uint64_t commits_found);

  bool must_seed() const { return phase_ == Phase::kLost; }
  bool is_seeding() const { return phase_ == Phase::kSeeding; }
  bool is_open() const { return folder_.is_open(); }
  // Begins a new copy of the database. No frame beyond `now` may have been overwritten, nor may one be before
  // collect().
  void begin_seed(const JournalPosition& now);
  void copy_some();  // of the database; the last part makes the replica complete

  // Reads what was committed up to `to`. Needs no folder.
  void collect(const JournalPosition& to);
  void ship();  // writes what was collected, if anything
  uint64_t shipped_commits() const { return phase_ == Phase::kShipping ? shipped_.commits : 0; }

  // Frames were overwritten before they were read.
  void lose();
  // Writing has failed. What was collected waits if the copy on disk can be gone on with.
  void failed(bool at_sync);
  // Opens the folder again after failed().
  void reopen();

 private:
  enum class Phase {
    kLost,      // must be seeded
    kSeeding,   // the database is being copied
    kShipping,  // the replica is complete
  };
  Segment take_waiting(bool is_complete);
  void check_owner(const JournalPosition& found, const JournalPosition& now) const;

  ReplicaDisk& disk_;
  const JournalReader& journal_;
  const ReplicaLimits limits_;
  ReplicaFolder folder_;
  Phase phase_ = Phase::kLost;
  JournalPosition collected_;
  JournalPosition shipped_;  // the last position that is on the replica's disk
  Pages waiting_;
  uint64_t waiting_database_pages_ = 0;
  int64_t copied_ = 0, to_copy_ = 0;  // bytes of the database
};

// Whether two journals are one, perhaps restored from a copy of itself.
bool are_related(const JournalPosition& a, const JournalPosition& b);

}  // namespace optserve::journal
