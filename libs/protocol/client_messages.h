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
  uint32_t position = 0;   // jobs ahead in the queue
  bool duplicate = false;  // the key was known: this is the earlier job
  template <class F>
  void fields(F&& f) {
    f("job", job), f("error", error), f("message", message), f("position", position), f("duplicate", duplicate);
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
  template <class F>
  void fields(F&& f) {
    f("job", job), f("text_offset", text_offset), f("text", text), f("tokens", tokens);
    f("progress_done", progress_done), f("progress_total", progress_total);
  }
  bool operator==(const JobEvent&) const = default;
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
  bool draining = false;
  template <class F>
  void fields(F&& f) {
    f("kind", kind), f("instance", instance), f("name", name), f("models", models), f("running", running);
    f("capacity", capacity), f("silent_ms", silent_ms), f("draining", draining);
  }
  bool operator==(const ServiceStatus&) const = default;
};

struct SystemStatus {
  uint64_t request = 0;
  uint64_t term = 0;
  bool durable = true;  // false: running without a journal
  bool draining = false;
  int64_t queued = 0, running = 0, finished = 0, failed = 0;
  std::vector<ServiceStatus> services;
  template <class F>
  void fields(F&& f) {
    f("request", request), f("term", term), f("durable", durable), f("draining", draining), f("queued", queued);
    f("running", running), f("finished", finished), f("failed", failed), f("services", services);
  }
  bool operator==(const SystemStatus&) const = default;
};

// scheduler -> anyone: a message that could not be served. request is 0 if the message could not be read that far.
struct Refused {
  uint64_t request = 0;
  ErrorCode code = ErrorCode::kBadRequest;
  std::string message;
  template <class F>
  void fields(F&& f) {
    f("request", request), f("code", code), f("message", message);
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
  template <class F>
  void fields(F&& f) {
    f("number", number), f("term", term);
  }
  bool operator==(const Pong&) const = default;
};

}  // namespace optserve::protocol
