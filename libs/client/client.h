// The C++ client library. One Client owns one connection and one thread; its calls are safe from any thread and block
// up to their time-out. Lost connections and scheduler restarts are healed inside: submits are repeated with the same
// key, streams resume at the byte they had reached, each byte of text is delivered once. What the scheduler refuses is
// returned at once, except that it is busy: then it is asked again within the time-out, and kBusy is returned if that
// was not enough.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "protocol/client_messages.h"

namespace optserve {

struct ClientOptions {
  std::string endpoint = "tcp://127.0.0.1:5555";
  std::chrono::milliseconds timeout{10'000};   // of one call, retries included
  std::chrono::milliseconds retry_first{250};  // doubles to retry_max, with full jitter
  std::chrono::milliseconds retry_max{8'000};
};

// Receives a job's output while it runs. Called on the client's thread, perhaps before submit() has returned: must not
// block or call the client. A stream without callbacks is no stream.
struct JobStream {
  std::function<void(std::string_view piece, const protocol::JobEvent& event)> on_text;  // may be empty
  std::function<void(const protocol::JobResult& result)> on_finished;                    // exactly once
  // Instead of on_finished: the job cannot be followed any more (the scheduler does not know it, or the Client ends).
  std::function<void(const Refusal& why)> on_lost;
};

class Client {
 public:
  explicit Client(const ClientOptions& options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Returns once the jobs are accepted (durable) or refused, one outcome each. Empty keys get a random one. With a
  // stream, events follow for each accepted job. A refusal of the whole means that none is known to be accepted; the
  // same jobs with the same keys may be submitted again.
  Result<std::vector<protocol::SubmitOutcome>> submit(std::vector<protocol::JobSpec> jobs, JobStream stream = {});
  // Follows a job submitted earlier, from `text_offset` on.
  Status attach(const JobId& job, uint64_t text_offset, JobStream stream);
  // Submits one job, streams it and returns its result, whatever its state; a refusal if it was not accepted or the
  // connection stayed down for longer than the job's ttl.
  Result<protocol::JobResult> generate(protocol::JobSpec job, std::function<void(std::string_view piece)> on_text = {});
  Result<protocol::JobResult> cancel(const JobId& job);
  Result<protocol::JobResult> get(const JobId& job);
  // get() until the job is terminal or `wait` is over (then its state at that time).
  Result<protocol::JobResult> wait(const JobId& job, std::chrono::milliseconds wait);
  Result<protocol::SystemStatus> status();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace optserve
