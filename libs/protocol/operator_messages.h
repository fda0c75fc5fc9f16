// What operators ask of the scheduler: to pause and resume queues, to list jobs, to queue dead jobs again, to make a
// backup. Clients send these messages; `request` is chosen by the client and returned in the answer.
#pragma once

#include "protocol/message_types.h"

namespace optserve::protocol {

// client -> scheduler; answered by SystemStatus once it is durable. It lasts, across restarts, until kResume.
enum class ControlAction : uint8_t { kPause = 1, kDrain = 2, kResume = 3 };
constexpr WireRange wire_range(ControlAction) { return {1, 3}; }
enum class ControlScope : uint8_t { kQueue = 1, kModel = 2, kService = 3 };
constexpr WireRange wire_range(ControlScope) { return {1, 3}; }
struct Control {
  uint64_t request = 0;
  ControlAction action = ControlAction::kPause;
  ControlScope scope = ControlScope::kQueue;
  std::string name;  // of the model; instance or name of the service; "" for the whole queue
  OPTSERVE_FIELDS(request, action, scope, name)
  bool operator==(const Control&) const = default;
};

// Which jobs are meant: those that meet all conditions that are set.
struct JobFilter {
  std::optional<JobId> job;
  std::optional<JobState> state;
  std::optional<std::string> tenant;
  std::string model;  // "": any model
  std::string group;  // "": any group
  OPTSERVE_FIELDS(job, state, tenant, model, group)
  bool operator==(const JobFilter&) const = default;
};

// client -> scheduler; answered by JobList with open and ended jobs in the order of their acceptance, after `after`.
struct ListJobs {
  uint64_t request = 0;
  JobFilter filter;
  uint64_t after = 0;  // `order` of the last job of the list before; 0: from the first job on
  uint32_t limit = 100;
  OPTSERVE_FIELDS(request, filter, after, limit)
  bool operator==(const ListJobs&) const = default;
};
struct JobSummary {
  static constexpr bool kPositional = true;
  JobId job;
  uint64_t order = 0;
  std::string key, tenant, group, model;
  JobState state = JobState::kQueued;
  int32_t attempts = 0;
  int64_t progress_done = 0, progress_total = 0;
  int64_t accepted_wall_ms = 0;  // since 1970
  std::string message;
  OPTSERVE_FIELDS(job, order, key, tenant, group, model, state, attempts, progress_done, progress_total,
                  accepted_wall_ms, message)
  bool operator==(const JobSummary&) const = default;
};
struct JobList {
  uint64_t request = 0;
  std::vector<JobSummary> jobs;
  bool more = false;  // ask again with `after` set to the last one's order
  OPTSERVE_FIELDS(request, jobs, more)
  bool operator==(const JobList&) const = default;
};

// client -> scheduler: a dead job is queued again under its id, and may use all its attempts again. Answered by
// JobStatus once that is durable, or by Refused (kNotFound) if the job is not dead.
struct Requeue {
  uint64_t request = 0;
  JobId job;
  OPTSERVE_FIELDS(request, job)
  bool operator==(const Requeue&) const = default;
};

// client -> scheduler: the scheduler forgets the ended jobs that match, with their results and keys. Answered by Purged
// once that is durable.
struct Purge {
  uint64_t request = 0;
  JobFilter filter;  // at least one condition
  OPTSERVE_FIELDS(request, filter)
  bool operator==(const Purge&) const = default;
};
struct Purged {
  uint64_t request = 0;
  int64_t jobs = 0;
  OPTSERVE_FIELDS(request, jobs)
  bool operator==(const Purged&) const = default;
};

// client -> scheduler: how many jobs of a group are in which state. If `cancel`, the open ones are cancelled first.
// Answered by GroupStatus once what it says is durable; for a group without jobs all numbers are 0.
struct GetGroup {
  uint64_t request = 0;
  std::string tenant;
  std::string group;
  bool cancel = false;
  OPTSERVE_FIELDS(request, tenant, group, cancel)
  bool operator==(const GetGroup&) const = default;
};
struct GroupStatus {
  uint64_t request = 0;
  int64_t open = 0;
  int64_t succeeded = 0, failed = 0, cancelled = 0, expired = 0, dead = 0;  // those whose results are still kept
  OPTSERVE_FIELDS(request, open, succeeded, failed, cancelled, expired, dead)
  bool operator==(const GroupStatus&) const = default;
};

// client -> scheduler: the scheduler writes a copy of its journal to its backup folder (--backup-folder). Answered by
// BackedUp, or by Refused.
struct Backup {
  uint64_t request = 0;
  OPTSERVE_FIELDS(request)
  bool operator==(const Backup&) const = default;
};
struct BackedUp {
  uint64_t request = 0;
  std::string file;  // its name within that folder
  int64_t bytes = 0;
  OPTSERVE_FIELDS(request, file, bytes)
  bool operator==(const BackedUp&) const = default;
};

}  // namespace optserve::protocol
