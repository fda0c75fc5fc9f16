// The answers that clients get and the filters with which they select jobs: the parts of the protocol that users of the
// client library see. `request` is the number of the question and belongs to the library.
#pragma once

#include "protocol/message_types.h"

namespace optserve::protocol {

// The outcome of one job of a Submit: an id, or an error.
struct SubmitOutcome {
  static constexpr bool kPositional = true;
  std::optional<JobId> job;
  std::optional<ErrorCode> error;
  std::string message;
  uint32_t position = 0;       // jobs ahead in the queue
  bool duplicate = false;      // the key was known, and `job` is the earlier job
  int64_t eta_ms = -1;         // expected wait until it starts; -1: not known
  int64_t retry_after_ms = 0;  // with kBusy and kStorageFull: when to ask again; 0: not known
  bool unfollowed = false;     // nothing is streamed although it was asked for: there are too many followers
  OPTSERVE_FIELDS(job, error, message, position, duplicate, eta_ms, retry_after_ms, unfollowed)
  bool operator==(const SubmitOutcome&) const = default;
};

// A piece of output. The pieces of a job follow each other without gaps: the next text_offset is this one plus the
// length of this text.
struct JobEvent {
  static constexpr bool kPositional = true;
  JobId job;
  uint64_t text_offset = 0;   // bytes of output text before this piece
  std::string text;           // whole characters; may be empty
  uint32_t tokens = 0;        // output tokens generated so far
  int64_t progress_done = 0;  // of a conversion: bytes
  int64_t progress_total = 0;
  JobState state = JobState::kQueued;
  uint32_t position = 0;  // queued: jobs that would start before it
  int64_t eta_ms = -1;    // queued: expected wait until it starts; -1: not known
  // The text that the client has is no longer the job's text, which was computed again with a different result. It
  // begins anew with this piece.
  bool restarted = false;
  OPTSERVE_FIELDS(job, text_offset, text, tokens, progress_done, progress_total, state, position, eta_ms, restarted)
  bool operator==(const JobEvent&) const = default;
};

// One registered tokenizer, worker group or converter.
struct ServiceStatus {
  std::string kind;
  std::string instance;
  std::string name;
  std::vector<std::string> models;
  int32_t running = 0;
  int32_t capacity = 0;
  int64_t silent_ms = 0;  // time since its last message
  bool draining = false;  // the service wants no new work
  bool paused = false;    // an operator gives it no new work
  int32_t slots = 0;      // how many of `capacity` jobs it computes at a time; others wait in it. 0: capacity
  OPTSERVE_FIELDS(kind, instance, name, models, running, capacity, silent_ms, draining, paused, slots)
  bool operator==(const ServiceStatus&) const = default;
};

// What a queue does. A paused queue accepts jobs but starts none; a draining queue accepts none and finishes those that
// it has.
enum class QueueMode : uint8_t { kOpen = 1, kPaused = 2, kDraining = 3 };
constexpr WireRange wire_range(QueueMode) { return {1, 3}; }
std::string_view queue_mode_name(QueueMode mode);

// The queue of one model.
struct ModelStatus {
  std::string name;
  QueueMode mode = QueueMode::kOpen;
  int64_t queued = 0, running = 0;
  double tokens_per_second = 0;  // measured while there was work; 0: not measured yet
  int64_t eta_ms = -1;           // expected time until all waiting jobs have started; -1: not known
  OPTSERVE_FIELDS(name, mode, queued, running, tokens_per_second, eta_ms)
  bool operator==(const ModelStatus&) const = default;
};

struct SystemStatus {
  uint64_t request = 0;
  uint64_t term = 0;
  bool durable = true;  // false: the scheduler runs without a journal
  bool draining = false;
  int64_t queued = 0, running = 0, finished = 0, failed = 0;
  std::vector<ServiceStatus> services;
  QueueMode mode = QueueMode::kOpen;  // of all models
  bool read_only = false;             // the journal's disk is full
  std::vector<ModelStatus> models;
  int64_t cancelled = 0, expired = 0;  // jobs that ended in this way; `failed` counts those that failed or are dead
  OPTSERVE_FIELDS(request, term, durable, draining, queued, running, finished, failed, services, mode, read_only,
                  models, cancelled, expired)
  bool operator==(const SystemStatus&) const = default;
};

// What an operator does to a queue or a service. It lasts, also across restarts, until kResume.
enum class ControlAction : uint8_t { kPause = 1, kDrain = 2, kResume = 3 };
constexpr WireRange wire_range(ControlAction) { return {1, 3}; }
enum class ControlScope : uint8_t { kQueue = 1, kModel = 2, kService = 3 };
constexpr WireRange wire_range(ControlScope) { return {1, 3}; }

// Selects the jobs that meet all conditions that are set.
struct JobFilter {
  std::optional<JobId> job;
  std::optional<JobState> state;
  std::optional<std::string> tenant;
  std::string model;  // "": any model
  std::string group;  // "": any group
  OPTSERVE_FIELDS(job, state, tenant, model, group)
  bool operator==(const JobFilter&) const = default;
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
  JobKind kind = JobKind::kGenerate;
  OPTSERVE_FIELDS(job, order, key, tenant, group, model, state, attempts, progress_done, progress_total,
                  accepted_wall_ms, message, kind)
  bool operator==(const JobSummary&) const = default;
};
struct JobList {
  uint64_t request = 0;
  std::vector<JobSummary> jobs;
  bool more = false;  // there are more; ask again with `after` set to the last job's order
  OPTSERVE_FIELDS(request, jobs, more)
  bool operator==(const JobList&) const = default;
};

// How many jobs of a group are in each state; for a group without jobs all numbers are 0.
struct GroupStatus {
  uint64_t request = 0;
  int64_t open = 0;
  int64_t succeeded = 0, failed = 0, cancelled = 0, expired = 0, dead = 0;  // only jobs whose results are still kept
  OPTSERVE_FIELDS(request, open, succeeded, failed, cancelled, expired, dead)
  bool operator==(const GroupStatus&) const = default;
};

// A copy of the journal that the scheduler has written.
struct BackedUp {
  uint64_t request = 0;
  std::string file;  // its name within that folder
  int64_t bytes = 0;
  OPTSERVE_FIELDS(request, file, bytes)
  bool operator==(const BackedUp&) const = default;
};

}  // namespace optserve::protocol
