// Between a client and the scheduler. `request` is chosen by the client and returned in the answer.
#pragma once

#include "protocol/client_answers.h"

namespace optserve::protocol {

// client -> scheduler: one or more jobs. Answered by SubmitReply once they are durable. With `stream`, JobEvents
// follow.
struct Submit {
  uint64_t request = 0;
  bool stream = true;
  std::vector<JobSpec> jobs;
  OPTSERVE_FIELDS(request, stream, jobs)
  bool operator==(const Submit&) const = default;
};

struct SubmitReply {
  uint64_t request = 0;
  std::vector<SubmitOutcome> outcomes;  // in the order of the jobs
  OPTSERVE_FIELDS(request, outcomes)
  bool operator==(const SubmitReply&) const = default;
};

// client -> scheduler: send this connection the job's events from `text_offset` (bytes of text it already has) on. A
// finished job is answered with JobFinished at once, an unknown one with Refused.
struct Attach {
  uint64_t request = 0;
  JobId job;
  uint64_t text_offset = 0;
  uint64_t text_digest = 0;  // text_digest() of the text that it has; 0: not given
  OPTSERVE_FIELDS(request, job, text_offset, text_digest)
  bool operator==(const Attach&) const = default;
};

// The digest of a text, or of a text that continues one with the digest `before`. Never 0.
constexpr uint64_t kDigestOfNothing = 0xcbf29ce484222325;
uint64_t text_digest(std::string_view text, uint64_t before = kDigestOfNothing);

// How much of a connection's window (Credit) one event or result uses. Client and scheduler count in the same way.
size_t stream_cost(const JobEvent& event);
size_t stream_cost(const JobResult& result);

// client -> scheduler: sent at the start of a connection, whenever a good part of the window is used, and every second.
// `consumed` is the stream_cost() of everything that this client has taken from its streams so far, on any connection.
// The scheduler sends at most `window` more than what has been consumed since the connection's first Credit. A
// connection that never sends a Credit is limited by its socket alone.
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

// client -> scheduler; answered by JobStatus, even if the job has already ended.
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

// scheduler -> anyone: a message could not be served. `request` is 0 if that part of the message could not be read.
struct Refused {
  uint64_t request = 0;
  ErrorCode code = ErrorCode::kBadRequest;
  std::string message;
  int64_t retry_after_ms = 0;  // with kBusy and kStorageFull: when to ask again; 0: not known
  OPTSERVE_FIELDS(request, code, message, retry_after_ms)
  bool operator==(const Refused&) const = default;
};

// Sent in both directions; answered by Pong with the same number and the scheduler's term. It keeps a connection open
// and shows that the peer is alive.
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
