// What an operator asks of the scheduler: to hold and release queues, to look at jobs, to put dead ones back, to make a
// backup. Sent by clients; `request` is chosen by the client and returned in the answer.
#pragma once

#include "protocol/message_types.h"

namespace optserve::protocol {

// client -> scheduler; answered by SystemStatus once it is durable. Holds across restarts until kResume.
enum class ControlAction : uint8_t { kPause = 1, kDrain = 2, kResume = 3 };
enum class ControlScope : uint8_t { kQueue = 1, kModel = 2, kService = 3 };
struct Control {
  uint64_t request = 0;
  ControlAction action = ControlAction::kPause;
  ControlScope scope = ControlScope::kQueue;
  std::string name;  // of the model; of the service: its instance or its name; "" for the queue
  template <class F>
  void fields(F&& f) {
    f("request", request), f("action", action), f("scope", scope), f("name", name);
  }
  bool operator==(const Control&) const = default;
};

// Which jobs are meant: all conditions that are set must hold.
struct JobFilter {
  std::optional<JobId> job;
  std::optional<JobState> state;
  std::optional<std::string> tenant;
  std::string model;  // "": any, as for the group
  std::string group;
  template <class F>
  void fields(F&& f) {
    f("job", job), f("state", state), f("tenant", tenant), f("model", model), f("group", group);
  }
  bool operator==(const JobFilter&) const = default;
};

// client -> scheduler; answered by JobList: open and ended jobs in the order of acceptance, from `after` on.
struct ListJobs {
  uint64_t request = 0;
  JobFilter filter;
  uint64_t after = 0;  // the order of the last job that is known; 0: from the start
  uint32_t limit = 100;
  template <class F>
  void fields(F&& f) {
    f("request", request), f("filter", filter), f("after", after), f("limit", limit);
  }
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
  template <class F>
  void fields(F&& f) {
    f("job", job), f("order", order), f("key", key), f("tenant", tenant), f("group", group), f("model", model);
    f("state", state), f("attempts", attempts), f("progress_done", progress_done);
    f("progress_total", progress_total), f("accepted_wall_ms", accepted_wall_ms), f("message", message);
  }
  bool operator==(const JobSummary&) const = default;
};
struct JobList {
  uint64_t request = 0;
  std::vector<JobSummary> jobs;
  bool more = false;  // ask again with `after` set to the last one's order
  template <class F>
  void fields(F&& f) {
    f("request", request), f("jobs", jobs), f("more", more);
  }
  bool operator==(const JobList&) const = default;
};

// client -> scheduler: a dead job is queued again under its id, with all its attempts. Answered by JobStatus once it is
// durable; kNotFound if the job is not dead.
struct Requeue {
  uint64_t request = 0;
  JobId job;
  template <class F>
  void fields(F&& f) {
    f("request", request), f("job", job);
  }
  bool operator==(const Requeue&) const = default;
};

// client -> scheduler: forgets ended jobs that match, with their results and keys. Answered by Purged once it is
// durable.
struct Purge {
  uint64_t request = 0;
  JobFilter filter;  // at least one condition
  template <class F>
  void fields(F&& f) {
    f("request", request), f("filter", filter);
  }
  bool operator==(const Purge&) const = default;
};
struct Purged {
  uint64_t request = 0;
  int64_t jobs = 0;
  template <class F>
  void fields(F&& f) {
    f("request", request), f("jobs", jobs);
  }
  bool operator==(const Purged&) const = default;
};

// client -> scheduler: how a group of jobs is doing; `cancel`: first cancels those that are open. Answered by
// GroupStatus, after the state that it tells is durable; a group without jobs has zeros.
struct GetGroup {
  uint64_t request = 0;
  std::string tenant;
  std::string group;
  bool cancel = false;
  template <class F>
  void fields(F&& f) {
    f("request", request), f("tenant", tenant), f("group", group), f("cancel", cancel);
  }
  bool operator==(const GetGroup&) const = default;
};
struct GroupStatus {
  uint64_t request = 0;
  int64_t open = 0;
  int64_t succeeded = 0, failed = 0, cancelled = 0, expired = 0, dead = 0;  // with results that are still kept
  template <class F>
  void fields(F&& f) {
    f("request", request), f("open", open), f("succeeded", succeeded), f("failed", failed);
    f("cancelled", cancelled), f("expired", expired), f("dead", dead);
  }
  bool operator==(const GroupStatus&) const = default;
};

// client -> scheduler: writes a copy of the journal to the folder that the scheduler was started with. Answered by
// BackedUp, or Refused.
struct Backup {
  uint64_t request = 0;
  template <class F>
  void fields(F&& f) {
    f("request", request);
  }
  bool operator==(const Backup&) const = default;
};
struct BackedUp {
  uint64_t request = 0;
  std::string file;  // its name within that folder
  int64_t bytes = 0;
  template <class F>
  void fields(F&& f) {
    f("request", request), f("file", file), f("bytes", bytes);
  }
  bool operator==(const BackedUp&) const = default;
};

}  // namespace optserve::protocol
