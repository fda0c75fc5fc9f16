// What operators ask of the scheduler: to pause and resume queues, to list jobs, to queue dead jobs again, to make a
// backup. Clients send these messages; `request` is chosen by the client and returned in the answer.
#pragma once

#include "protocol/client_answers.h"

namespace optserve::protocol {

// client -> scheduler; answered by SystemStatus once it is durable. It lasts, also across restarts, until kResume.
struct Control {
  uint64_t request = 0;
  ControlAction action = ControlAction::kPause;
  ControlScope scope = ControlScope::kQueue;
  std::string name;  // of the model; instance or name of the service; "" for the whole queue
  OPTSERVE_FIELDS(request, action, scope, name)
  bool operator==(const Control&) const = default;
};

// client -> scheduler; answered by JobList with open and ended jobs in the order of their acceptance, after `after`, or
// in the opposite order before it.
struct ListJobs {
  uint64_t request = 0;
  JobFilter filter;
  uint64_t after = 0;  // `order` of the last job of the previous list; 0: from the start
  uint32_t limit = 100;
  bool newest_first = false;
  OPTSERVE_FIELDS(request, filter, after, limit, newest_first)
  bool operator==(const ListJobs&) const = default;
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

// client -> scheduler: how many jobs of a group are in each state. With `cancel`, open jobs are cancelled first.
// Answered by GroupStatus once what it says is durable; for a group without jobs all numbers are 0.
struct GetGroup {
  uint64_t request = 0;
  std::string tenant;
  std::string group;
  bool cancel = false;
  OPTSERVE_FIELDS(request, tenant, group, cancel)
  bool operator==(const GetGroup&) const = default;
};

// client -> scheduler: the scheduler writes a copy of its journal to its backup folder (--backup-folder). Answered by
// BackedUp, or by Refused.
struct Backup {
  uint64_t request = 0;
  OPTSERVE_FIELDS(request)
  bool operator==(const Backup&) const = default;
};

}  // namespace optserve::protocol
