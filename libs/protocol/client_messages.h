// Between a client and the scheduler. `request` is chosen by the client and returned in the answer.
#pragma once

#include "protocol/message_types.h"

namespace optserve::protocol {

// client -> scheduler: one or more jobs. Answered by SubmitReply once they are durable. If `stream`, JobEvents follow.
struct Submit {
  uint64_t request = 0;
  bool stream = true;
  std::vector<JobSpec> jobs;
  OPTSERVE_FIELDS(request, stream, jobs)
  bool operator==(const Submit&) const = default;
};

// What became of one job of a Submit: an id, or an error.
struct SubmitOutcome {
  static constexpr bool kPositional = true;
  std::optional<JobId> job;
  std::optional<ErrorCode> error;
  std::string message;
  uint32_t position = 0;       // jobs ahead in the queue
  bool duplicate = false;      // the key was known: `job` is the earlier job
  int64_t eta_ms = -1;         // expected wait until it starts; -1: not known
  int64_t retry_after_ms = 0;  // with kBusy and kStorageFull: when to ask again; 0: not known
  bool unfollowed = false;     // `stream` was asked for, and the job has its maximum of followers: nothing is streamed
  OPTSERVE_FIELDS(job, error, message, position, duplicate, eta_ms, retry_after_ms, unfollowed)
  bool operator==(const SubmitOutcome&) const = default;
};

struct SubmitReply {
  uint64_t request = 0;
  std::vector<SubmitOutcome> outcomes;  // in the order of the jobs
  OPTSERVE_FIELDS(request, outcomes)
  bool operator==(const SubmitReply&) const = default;
};

// client -> scheduler: send this connection the job's events from `text_offset` (bytes of text it already has) on.
// A finished job answers with JobFinished at once; an unknown one with Refused.
struct Attach {
  uint64_t request = 0;
  JobId job;
  uint64_t text_offset = 0;
  uint64_t text_digest = 0;  // text_digest() of the text that it has; 0: not told
  OPTSERVE_FIELDS(request, job, text_offset, text_digest)
  bool operator==(const Attach&) const = default;
};

// Of a text, or of the continuation of one that has the digest `before`. Never 0.
constexpr uint64_t kDigestOfNothing = 0xcbf29ce484222325;
uint64_t text_digest(std::string_view text, uint64_t before = kDigestOfNothing);

// A piece of output. The pieces of a job follow each other without a gap: the next text_offset is this one plus the
// length of this text.
struct JobEvent {
  static constexpr bool kPositional = true;
  JobId job;
  uint64_t text_offset = 0;   // bytes of output text before this piece
  std::string text;           // whole characters; may be empty
  uint32_t tokens = 0;        // output tokens that are generated so far
  int64_t progress_done = 0;  // of a conversion: bytes
  int64_t progress_total = 0;
  JobState state = JobState::kQueued;
  uint32_t position = 0;  // queued: jobs that would start before it
  int64_t eta_ms = -1;    // queued: expected wait until it starts; -1: not known
  // The text that the client has is not the job's: it was computed again, with another result. It begins anew with this
  // piece.
  bool restarted = false;
  OPTSERVE_FIELDS(job, text_offset, text, tokens, progress_done, progress_total, state, position, eta_ms, restarted)
  bool operator==(const JobEvent&) const = default;
};

// How much of a connection's window (Credit) one event or result uses. Client and scheduler count alike.
size_t stream_cost(const JobEvent& event);
size_t stream_cost(const JobResult& result);

// client -> scheduler: sent at the start of a connection, whenever a good part of the window is used, and every second.
// `consumed` is the stream_cost() of all that this client has taken from its streams so far, on any connection. The
// scheduler sends at most `window` more than what was consumed since the connection's first Credit. A connection that
// never sends a Credit is limited by its socket alone.
struct Credit {
  uint64_t consumed = 0;
  uint64_t window = 0;
  OPTSERVE_FIELDS(consumed, window)
  bool operator==(const Credit&) const = default;
};

// scheduler -> client.
struct JobEvents {
  std::vector<JobEvent> events;
  OPTSERVE_FIELDS(events)
  bool operator==(const JobEvents&) const = default;
};

// scheduler -> client: sent once to each connection that follows the job, after the result is durable.
struct JobFinished {
  JobResult result;
  OPTSERVE_FIELDS(result)
  bool operator==(const JobFinished&) const = default;
};

// client -> scheduler; answered by JobStatus, also if the job had ended before.
struct Cancel {
  uint64_t request = 0;
  JobId job;
  OPTSERVE_FIELDS(request, job)
  bool operator==(const Cancel&) const = default;
};

// client -> scheduler; answered by JobStatus, or Refused (kNotFound).
struct GetJob {
  uint64_t request = 0;
  JobId job;
  OPTSERVE_FIELDS(request, job)
  bool operator==(const GetJob&) const = default;
};

struct JobStatus {
  uint64_t request = 0;
  JobResult result;
  OPTSERVE_FIELDS(request, result)
  bool operator==(const JobStatus&) const = default;
};

// client -> scheduler; answered by SystemStatus.
struct GetStatus {
  uint64_t request = 0;
  OPTSERVE_FIELDS(request)
  bool operator==(const GetStatus&) const = default;
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
  int32_t slots = 0;      // of `capacity`, jobs that it computes at a time; the others wait with it. 0: capacity
  OPTSERVE_FIELDS(kind, instance, name, models, running, capacity, silent_ms, draining, paused, slots)
  bool operator==(const ServiceStatus&) const = default;
};

// What a queue does. A paused queue accepts jobs and starts none; a draining queue accepts none and finishes those that
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
  int64_t eta_ms = -1;           // expected wait of a job submitted now; -1: not known
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
  int64_t cancelled = 0, expired = 0;  // jobs that ended so; `failed` are those that failed or are dead
  OPTSERVE_FIELDS(request, term, durable, draining, queued, running, finished, failed, services, mode, read_only,
                  models, cancelled, expired)
  bool operator==(const SystemStatus&) const = default;
};

// scheduler -> anyone: a message could not be served. `request` is 0 if the message could not be read that far.
struct Refused {
  uint64_t request = 0;
  ErrorCode code = ErrorCode::kBadRequest;
  std::string message;
  int64_t retry_after_ms = 0;  // with kBusy and kStorageFull: when to ask again; 0: not known
  OPTSERVE_FIELDS(request, code, message, retry_after_ms)
  bool operator==(const Refused&) const = default;
};

// In both directions; answered by Pong with the same number and the scheduler's term. Keeps a connection open and shows
// that the peer is alive.
struct Ping {
  uint64_t number = 0;
  OPTSERVE_FIELDS(number)
  bool operator==(const Ping&) const = default;
};
struct Pong {
  uint64_t number = 0;
  uint64_t term = 0;
  int64_t waiting = 0;  // for a worker or converter: jobs in the queue that it could run
  OPTSERVE_FIELDS(number, term, waiting)
  bool operator==(const Pong&) const = default;
};

}  // namespace optserve::protocol
