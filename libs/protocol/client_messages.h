// Between a client and the scheduler. `request` is chosen by the client and returned in the answer.
#pragma once

#include "protocol/message_types.h"

namespace optserve::protocol {

// client -> scheduler: one or more jobs. Answered by SubmitReply once they are durable. `stream`: also send JobEvents.
struct Submit {
  uint64_t request = 0;
  bool stream = true;
  std::vector<JobSpec> jobs;
  template <class F>
  void fields(F&& f) {
    f("request", request), f("stream", stream), f("jobs", jobs);
  }
  bool operator==(const Submit&) const = default;
};

// What became of one job of a Submit: an id, or an error.
struct SubmitOutcome {
  static constexpr bool kPositional = true;
  std::optional<JobId> job;
  std::optional<ErrorCode> error;
  std::string message;
  uint32_t position = 0;       // jobs ahead in the queue
  bool duplicate = false;      // the key was known: this is the earlier job
  int64_t eta_ms = -1;         // expected wait until it starts; -1: not known
  int64_t retry_after_ms = 0;  // with kBusy and kStorageFull: when to ask again; 0: not known
  template <class F>
  void fields(F&& f) {
    f("job", job), f("error", error), f("message", message), f("position", position), f("duplicate", duplicate);
    f("eta_ms", eta_ms), f("retry_after_ms", retry_after_ms);
  }
  bool operator==(const SubmitOutcome&) const = default;
};

struct SubmitReply {
  uint64_t request = 0;
  std::vector<SubmitOutcome> outcomes;  // in the order of the jobs
  template <class F>
  void fields(F&& f) {
    f("request", request), f("outcomes", outcomes);
  }
  bool operator==(const SubmitReply&) const = default;
};

// client -> scheduler: send this connection the job's events from `text_offset` (bytes of text it already has) on.
// A finished job answers with JobFinished at once; an unknown one with Refused.
struct Attach {
  uint64_t request = 0;
  JobId job;
  uint64_t text_offset = 0;
  template <class F>
  void fields(F&& f) {
    f("request", request), f("job", job), f("text_offset", text_offset);
  }
  bool operator==(const Attach&) const = default;
};

// A piece of output. Pieces of one job follow each other without gap: the next text_offset is this one plus the text's
// length.
struct JobEvent {
  static constexpr bool kPositional = true;
  JobId job;
  uint64_t text_offset = 0;   // bytes of output text before this piece
  std::string text;           // whole characters; may be empty
  uint32_t tokens = 0;        // output tokens generated so far
  int64_t progress_done = 0;  // conversions: bytes
  int64_t progress_total = 0;
  JobState state = JobState::kQueued;
  uint32_t position = 0;  // queued: jobs that would start before it
  int64_t eta_ms = -1;    // queued: expected wait until it starts; -1: not known
  template <class F>
  void fields(F&& f) {
    f("job", job), f("text_offset", text_offset), f("text", text), f("tokens", tokens);
    f("progress_done", progress_done), f("progress_total", progress_total);
    f("state", state), f("position", position), f("eta_ms", eta_ms);
  }
  bool operator==(const JobEvent&) const = default;
};

// What one event or result takes of a connection's window (Credit), the same on both sides.
size_t stream_cost(const JobEvent& event);
size_t stream_cost(const JobResult& result);

// client -> scheduler, at the start of a connection, whenever a good part of the window was used, and every second.
// `consumed`: stream_cost() of all that this client has taken from its streams so far, on whichever connection. Beyond
// what was consumed since the connection's first Credit, the scheduler sends at most `window` more. A connection that
// never sends a Credit is limited by its socket alone.
struct Credit {
  uint64_t consumed = 0;
  uint64_t window = 0;
  template <class F>
  void fields(F&& f) {
    f("consumed", consumed), f("window", window);
  }
  bool operator==(const Credit&) const = default;
};

// scheduler -> client.
struct JobEvents {
  std::vector<JobEvent> events;
  template <class F>
  void fields(F&& f) {
    f("events", events);
  }
  bool operator==(const JobEvents&) const = default;
};

// scheduler -> client, once per attached connection, after the result is durable.
struct JobFinished {
  JobResult result;
  template <class F>
  void fields(F&& f) {
    f("result", result);
  }
  bool operator==(const JobFinished&) const = default;
};

// client -> scheduler; answered by JobStatus (of a job that may have ended before).
struct Cancel {
  uint64_t request = 0;
  JobId job;
  template <class F>
  void fields(F&& f) {
    f("request", request), f("job", job);
  }
  bool operator==(const Cancel&) const = default;
};

// client -> scheduler; answered by JobStatus, or Refused (kNotFound).
struct GetJob {
  uint64_t request = 0;
  JobId job;
  template <class F>
  void fields(F&& f) {
    f("request", request), f("job", job);
  }
  bool operator==(const GetJob&) const = default;
};

struct JobStatus {
  uint64_t request = 0;
  JobResult result;
  template <class F>
  void fields(F&& f) {
    f("request", request), f("result", result);
  }
  bool operator==(const JobStatus&) const = default;
};

// client -> scheduler; answered by SystemStatus.
struct GetStatus {
  uint64_t request = 0;
  template <class F>
  void fields(F&& f) {
    f("request", request);
  }
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
  int64_t silent_ms = 0;  // since its last message
  bool draining = false;  // by its own wish
  bool paused = false;    // by an operator
  template <class F>
  void fields(F&& f) {
    f("kind", kind), f("instance", instance), f("name", name), f("models", models), f("running", running);
    f("capacity", capacity), f("silent_ms", silent_ms), f("draining", draining), f("paused", paused);
  }
  bool operator==(const ServiceStatus&) const = default;
};

// What a queue does: kPaused accepts jobs and starts none; kDraining accepts none and works off what is there.
enum class QueueMode : uint8_t { kOpen = 1, kPaused = 2, kDraining = 3 };
std::string_view queue_mode_name(QueueMode mode);

// The queue of one model.
struct ModelStatus {
  std::string name;
  QueueMode mode = QueueMode::kOpen;
  int64_t queued = 0, running = 0;
  double tokens_per_second = 0;  // measured while it had work; 0: not yet
  int64_t eta_ms = -1;           // expected wait of a job submitted now; -1: not known
  template <class F>
  void fields(F&& f) {
    f("name", name), f("mode", mode), f("queued", queued), f("running", running);
    f("tokens_per_second", tokens_per_second), f("eta_ms", eta_ms);
  }
  bool operator==(const ModelStatus&) const = default;
};

struct SystemStatus {
  uint64_t request = 0;
  uint64_t term = 0;
  bool durable = true;  // false: running without a journal
  bool draining = false;
  int64_t queued = 0, running = 0, finished = 0, failed = 0;
  std::vector<ServiceStatus> services;
  QueueMode mode = QueueMode::kOpen;  // of all models
  bool read_only = false;             // the journal's disk is full
  std::vector<ModelStatus> models;
  template <class F>
  void fields(F&& f) {
    f("request", request), f("term", term), f("durable", durable), f("draining", draining), f("queued", queued);
    f("running", running), f("finished", finished), f("failed", failed), f("services", services);
    f("mode", mode), f("read_only", read_only), f("models", models);
  }
  bool operator==(const SystemStatus&) const = default;
};

// scheduler -> anyone: a message that could not be served. request is 0 if the message could not be read that far.
struct Refused {
  uint64_t request = 0;
  ErrorCode code = ErrorCode::kBadRequest;
  std::string message;
  int64_t retry_after_ms = 0;  // with kBusy and kStorageFull: when to ask again; 0: not known
  template <class F>
  void fields(F&& f) {
    f("request", request), f("code", code), f("message", message), f("retry_after_ms", retry_after_ms);
  }
  bool operator==(const Refused&) const = default;
};

// Either way: answered by Pong with the same number and the scheduler's term. Keeps a connection alive and proves the
// peer is.
struct Ping {
  uint64_t number = 0;
  template <class F>
  void fields(F&& f) {
    f("number", number);
  }
  bool operator==(const Ping&) const = default;
};
struct Pong {
  uint64_t number = 0;
  uint64_t term = 0;
  int64_t waiting = 0;  // to a worker or converter: jobs in the queue that it could run
  template <class F>
  void fields(F&& f) {
    f("number", number), f("term", term), f("waiting", waiting);
  }
  bool operator==(const Pong&) const = default;
};

}  // namespace optserve::protocol
