// Moves everything that the journal of one queue holds into the journal of another, when the scheduler of the first is
// gone for good. Each may be a file or a queue in PostgreSQL, and no scheduler may use either of them meanwhile.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "journal/journal.h"

namespace optserve::journal {

// Where a merge takes its jobs from.
struct MergeSource {
  std::string path;        // a journal, or the copy of a backup or replica
  bool is_a_copy = false;  // then the backup or the replica itself is left as it is
};
// A URL and a file with a lock beside it are journals, and the merge empties them. Of a backup, of the newest backup of
// a folder and of a replica a copy with the name of the original and ".merged" is made, unless it is there already: it
// says what an earlier run of the merge has done. Throws Error if there is nothing to merge, and if the copy cannot be
// made.
MergeSource merge_source(const std::string& from);

struct MergeOptions {
  JournalOptions from, into;
  // Whether the job of this key is to be moved; the others stay where they are. Empty: all are.
  std::function<bool(const std::string& tenant, const std::string& key)> belongs{};
  size_t batch_jobs = 256;        // of a transaction, at most
  size_t batch_bytes = 1U << 20;  // about
};

// The key stands for one payload in one queue and for another in the other. The job stays in the journal it was in.
struct KeyConflict {
  std::string tenant, key;
  JobId from, into;
};

struct MergeOutcome {
  uint64_t open = 0, ended = 0;  // jobs that came
  uint64_t duplicates = 0;       // jobs whose key and payload both queues had
  uint64_t known = 0;            // jobs that an earlier run had brought
  uint64_t stayed = 0;           // jobs that do not belong to the remaining queue
  std::vector<KeyConflict> conflicts{};
  uint64_t term = 0;  // of the remaining queue: above that of every lease that either has given
};

// The remaining journal must exist. Jobs are moved in transactions: a part is committed there and then removed from the
// other journal, so whatever ends the merge, repeating it completes it. If all jobs are to be moved, the emptied queue
// is set to drain, so that a scheduler that is started on it by mistake accepts nothing. Throws Error for a journal
// that is in use, damaged or not there, and if a disk is full.
MergeOutcome merge_journals(const MergeOptions& options, const Clock& clock);

}  // namespace optserve::journal
