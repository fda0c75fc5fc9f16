// Decides what becomes of each job of a queue whose journal is merged into that of another queue. It knows ids, keys
// and states only, and reads and writes nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "journal/job_store.h"

namespace optserve::journal {

// What happens to a job that comes. "The other" is a job of the remaining queue with the same key and payload.
enum class Fate : uint8_t {
  kMoves,      // the key is not known: the job comes as it is
  kIsThere,    // the job itself came with an earlier run of the merge
  kConflicts,  // the key stands for another payload: the job stays where it is
  // The key stands for the same payload, so the work counts once. Both ids stay known:
  kTakesResult,  // the other has ended: the job ends with the other's result
  kGivesWay,     // both are open: the other goes on, and this one ends as its duplicate
  kKeepsOwnEnd,  // the job has ended, but the key stays with the other
  kEndsOther,    // the job has succeeded and the other is open: the other ends with this result
};

// A job with a key. `state` is kQueued as long as the job is open.
struct KeyedJob {
  JobId job;
  uint64_t order = 0;  // of an open job
  std::string payload_sha256;
  protocol::JobState state = protocol::JobState::kQueued;
};

struct Decision {
  Fate fate = Fate::kMoves;
  KeyedJob other{};  // that has the key, unless the job moves or is there
};

class MergePlan {
 public:
  explicit MergePlan(const Recovery& into);
  // Decides about the next job, and takes the decision into account for the jobs that follow.
  Decision decide(const std::string& tenant, const std::string& key, KeyedJob job);

 private:
  // Neither part holds a '/'.
  static std::string joined(const std::string& tenant, const std::string& key) { return tenant + '/' + key; }

  std::unordered_set<JobId> there_;
  std::unordered_map<std::string, KeyedJob> keys_;
};

}  // namespace optserve::journal
