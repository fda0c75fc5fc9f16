// The C++ client library. One Client owns one thread and a connection to each scheduler; its calls are safe from any
// thread and block up to their time-out. Lost connections and scheduler restarts are healed inside: submits are
// repeated with the same key, streams resume at the byte they had reached, each byte of text is delivered once. What a
// scheduler refuses is returned at once, except that it is busy or its disk is full: then it is asked again, when it
// said and within the time-out, and that refusal is returned if this was not enough. When a scheduler answers late, at
// most a tenth of the requests are repeated.
//
// Several schedulers share jobs that know nothing of each other. The key of a job decides which one gets it, so that a
// repeated key finds the earlier job, from whichever client that names the schedulers by the same addresses. A job goes
// to the next in its order if the first could not be reached since before the job was sent, or refused it as busy; once
// a job may have arrived it stays where it is. So a key can run twice, under two ids, if it is submitted again while
// its scheduler is down: a program that restarts then and submits the same key cannot know that the first was accepted.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/limits.h"
#include "protocol/client_messages.h"
#include "protocol/operator_messages.h"

namespace optserve {

struct ClientOptions {
  std::string endpoints = "tcp://127.0.0.1:5555";  // of all schedulers, with commas between them
  std::chrono::milliseconds timeout{10'000};       // of one call, retries included
  std::chrono::milliseconds retry_first{250};      // doubles to retry_max, with full jitter
  std::chrono::milliseconds retry_max{8'000};
  // Of stream content that a scheduler sends ahead of the callbacks; schedulers allow no more.
  uint64_t window_bytes = limits::kStreamWindowMax;
};

// Receives a job's output while it runs. Called on the client's thread, perhaps before submit() has returned: must not
// block for long (it holds up this client's other streams; the schedulers wait) or call the client. A stream without
// callbacks is no stream.
struct JobStream {
  std::function<void(std::string_view piece, const protocol::JobEvent& event)> on_text{};  // never an empty piece
  // State, position in the queue, expected wait, tokens or progress have changed; before on_text of the same event.
  std::function<void(const protocol::JobEvent& event)> on_progress{};
  std::function<void(const protocol::JobResult& result)> on_finished{};  // exactly once
  // Instead of on_finished: the job cannot be followed any more (the scheduler does not know it, or the Client ends).
  std::function<void(const Refusal& why)> on_lost{};

  bool is_wanted() const { return on_text || on_progress || on_finished || on_lost; }
};

// What each scheduler said, in the order of ClientOptions::endpoints. One that cannot be reached is kUnavailable; once
// another has answered, it is not waited for.
template <class T>
struct SchedulerAnswer {
  std::string endpoint;
  Result<T> answer;
};
template <class T>
using Answers = std::vector<SchedulerAnswer<T>>;

// Where a list of jobs goes on: by endpoint, the order of the last job that is known. Empty: all from the start; else
// only the schedulers that it names are asked.
using ListPosition = std::map<std::string, uint64_t>;

class Client {
 public:
  // Throws Error if an endpoint is none.
  explicit Client(const ClientOptions& options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // --- jobs

  // Returns once the jobs are accepted (durable) or refused, one outcome each. Empty keys get a random one. With a
  // stream, events follow for each accepted job. A refusal of the whole means that none is known to be accepted; the
  // same jobs with the same keys may be submitted again.
  Result<std::vector<protocol::SubmitOutcome>> submit(std::vector<protocol::JobSpec> jobs, JobStream stream = {});
  // Follows a job submitted earlier, from `text_offset` on.
  Status attach(const JobId& job, uint64_t text_offset, JobStream stream);
  // Submits one job, streams it and returns its result, whatever its state; a refusal if it was not accepted or the
  // connection stayed down for longer than the job's ttl.
  Result<protocol::JobResult> generate(protocol::JobSpec job, std::function<void(std::string_view piece)> on_text = {});

  // A job that this client did not submit is asked for at all schedulers. kNotFound: all answered and none knows it;
  // kUnavailable: those that answered do not know it.
  Result<protocol::JobResult> cancel(const JobId& job);
  Result<protocol::JobResult> get(const JobId& job);
  // get() until the job is terminal or `wait` is over (then its state at that time).
  Result<protocol::JobResult> wait(const JobId& job, std::chrono::milliseconds wait);

  // All jobs of a group, on all schedulers together; refused if one of them does not answer. cancel_group() first
  // cancels those that are open, and may have done so on some schedulers when it is refused: it can be repeated.
  Result<protocol::GroupStatus> group(const std::string& tenant, const std::string& group);
  Result<protocol::GroupStatus> cancel_group(const std::string& tenant, const std::string& group);

  // --- operating

  Answers<protocol::SystemStatus> status();
  // `name`: of the model or service; empty for the whole queue. Holds across restarts until kResume. Answers with the
  // state after it.
  Answers<protocol::SystemStatus> control(protocol::ControlAction action, protocol::ControlScope scope,
                                          const std::string& name = {});
  // At most `limit` jobs of each scheduler, in the order of acceptance.
  Answers<protocol::JobList> list(const protocol::JobFilter& filter, uint32_t limit, const ListPosition& after = {});
  // A dead job is queued again under its id. kNotFound if there is no such job or it is not dead, which can also mean
  // that it was requeued and the first answer was lost.
  Result<protocol::JobResult> requeue(const JobId& job);
  // Forgets ended jobs that match at least one condition, and says how many (fewer if an answer was lost and the
  // request repeated). Refused if a scheduler does not answer; others may have done it: it can be repeated.
  Result<int64_t> purge(const protocol::JobFilter& filter);
  // Each scheduler writes a copy of its journal to its own folder. Never repeated: a lost answer is kUnavailable.
  Answers<protocol::BackedUp> backup(std::chrono::milliseconds wait);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace optserve
