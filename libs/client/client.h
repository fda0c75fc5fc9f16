// The C++ client library. A Client owns one thread and a connection to each scheduler. Its calls may come from any
// thread and block until they are answered or their timeout is over. start() does not wait: it gives a future.
// async_client.h has the same calls with callbacks, for programs with a loop of their own; future.h makes futures of
// them.
//
// Lost connections and restarts of a scheduler are handled inside: submits are repeated with the same key, and streams
// resume at the byte they had reached, so that each byte of text is delivered once. A refusal is returned at once,
// unless the scheduler is busy or its disk is full: then the client asks again, after the time that the scheduler
// named, and returns the refusal only when the timeout is over. If a scheduler answers late, at most a tenth of the
// requests are repeated.
//
// Several schedulers share the jobs without knowing of each other. A job's key decides which scheduler gets it, so that
// a repeated key finds the earlier job, from any client that uses the same addresses. A job goes to the next scheduler
// in its order if the first one was unreachable before the job was sent, or refused it as busy. Once a job may have
// arrived at a scheduler, it stays there. Hence a key can run twice, under two ids, if it is submitted again while its
// scheduler is down: a program that restarts at that moment cannot know that its first submit was accepted.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "client/client_types.h"

namespace optserve::client {

class AsyncClient;

class Client {
 public:
  // Connects in the background. Throws Error if an endpoint is not valid.
  explicit Client(const ClientOptions& options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // --- jobs

  // Returns when every job is accepted (and on disk) or refused, with one outcome for each. A job without a key gets a
  // random one. The stream, if there is one, receives the events of all accepted jobs. If the call itself is refused,
  // no job is known to be accepted; submitting the same jobs with the same keys again is safe.
  Result<std::vector<protocol::SubmitOutcome>> submit(std::vector<protocol::JobSpec> jobs, JobStream stream = {});
  // Follows a job that was submitted earlier, from byte `text_offset` of its text on.
  Status attach(const JobId& job, uint64_t text_offset, JobStream stream);
  // Submits one job, streams it and returns its result, whatever its state. If the text begins anew, `on_text` gets it
  // again from the start; the result has the final text. Refused if the job was not accepted, or if no result came
  // within its time to live.
  Result<protocol::JobResult> generate(protocol::JobSpec job, std::function<void(std::string_view piece)> on_text = {});

  // The same without waiting: the future has what generate() returns. It is ready when the job has ended or was
  // refused, or when the Client is destroyed (kCancelled); the client goes on asking however long its scheduler is
  // unreachable.
  std::future<Result<protocol::JobResult>> start(protocol::JobSpec job,
                                                 std::function<void(std::string_view piece)> on_text = {});

  // For a job that this client did not submit, all schedulers are asked. kNotFound: every scheduler answered, and none
  // knows the job. kUnavailable: some did not answer, and the others do not know it.
  Result<protocol::JobResult> cancel(const JobId& job);
  // The same, but gives up after `within` instead of ClientOptions::timeout.
  Result<protocol::JobResult> cancel(const JobId& job, std::chrono::milliseconds within);
  Result<protocol::JobResult> get(const JobId& job);
  // Waits until the job has ended, but at most `wait`, and returns its state at that time.
  Result<protocol::JobResult> wait(const JobId& job, std::chrono::milliseconds wait);

  // Counts the jobs of a group on all schedulers; refused if one of them does not answer. cancel_group() first cancels
  // those that are open. If it is refused, it may have cancelled jobs on some schedulers; it can be repeated.
  Result<protocol::GroupStatus> group(const std::string& tenant, const std::string& group);
  Result<protocol::GroupStatus> cancel_group(const std::string& tenant, const std::string& group);

  // How long the job's scheduler has been unreachable; zero while it answers. A stream resumes however long that takes,
  // so a caller that waits for one can use this to give up at some time.
  std::chrono::milliseconds unreachable_for(const JobId& job);

  // --- operating

  Answers<protocol::SystemStatus> status();
  // The same, but gives up after `within` instead of ClientOptions::timeout.
  Answers<protocol::SystemStatus> status(std::chrono::milliseconds within);
  // Pauses, drains or resumes the whole queue (then `name` is empty), or the model or service of this name. The setting
  // survives restarts of the scheduler. Returns the state afterwards.
  Answers<protocol::SystemStatus> control(protocol::ControlAction action, protocol::ControlScope scope,
                                          const std::string& name = {});
  // At most `limit` jobs of each scheduler, in the order in which they were accepted or in the opposite one.
  Answers<protocol::JobList> list(const protocol::JobFilter& filter, uint32_t limit, const ListPosition& after = {},
                                  ListOrder order = ListOrder::kOldestFirst);
  // Queues a dead job again under its id. kNotFound: there is no such job, or it is not dead. The latter can also mean
  // that the first answer to this call was lost.
  Result<protocol::JobResult> requeue(const JobId& job);
  // Deletes the ended jobs that match the filter, which needs at least one condition. Returns how many (too few if an
  // answer was lost and the request repeated). Refused if a scheduler does not answer; the others may have deleted
  // theirs, and the call can be repeated.
  Result<int64_t> purge(const protocol::JobFilter& filter);
  // Each scheduler writes a copy of its journal to its backup folder. The request is never repeated: if an answer is
  // lost, it is kUnavailable.
  Answers<protocol::BackedUp> backup(std::chrono::milliseconds wait);

  // The client with callbacks that this one uses.
  AsyncClient& async() { return *async_; }

 private:
  std::unique_ptr<AsyncClient> async_;
};

}  // namespace optserve::client
