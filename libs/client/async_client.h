// The client library without waiting: every call returns at once, and its answer comes to a callback. A program with a
// loop of its own uses this one; client.h is the same for programs that wait for each answer, and says how lost
// connections, restarts and several schedulers are handled.
//
// Each `done` is called exactly once, on the client's thread, at the deadline of the call at the latest. Callbacks, of
// streams too, may start other calls of this class, but must not block, because that delays all others. What is open
// when the client is destroyed ends with kCancelled before the destructor returns.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/client_types.h"

namespace optserve {
class Clock;
}  // namespace optserve

namespace optserve::client {

class AsyncClient {
 public:
  template <class T>
  using Done = std::function<void(T)>;

  // Connects in the background. Throws Error if an endpoint is not valid.
  explicit AsyncClient(const ClientOptions& options);
  ~AsyncClient();
  AsyncClient(const AsyncClient&) = delete;
  AsyncClient& operator=(const AsyncClient&) = delete;

  const ClientOptions& options() const;
  const Clock& clock() const;  // the clock of deadlines
  // Whether the caller runs on the client's thread, as callbacks do, and so must not wait for an answer.
  bool is_own_thread() const;

  // A job without a key gets a random one. Events of a job can come before `done`.
  void submit(std::vector<protocol::JobSpec> jobs, JobStream stream, Done<Submission> done);
  void attach(const JobId& job, uint64_t text_offset, JobStream stream, Done<Result<Follow>> done);
  // When `done` is called, the streams will not deliver anything more.
  void unfollow(std::vector<Follow> follows, std::function<void()> done = {});

  // `within` replaces ClientOptions::timeout for this call.
  void cancel(const JobId& job, Done<Result<protocol::JobResult>> done,
              std::optional<std::chrono::milliseconds> within = {});
  void get(const JobId& job, Done<Result<protocol::JobResult>> done);
  void requeue(const JobId& job, Done<Result<protocol::JobResult>> done);
  void group(const std::string& tenant, const std::string& group, bool cancel,
             Done<Result<protocol::GroupStatus>> done);
  void unreachable_for(const JobId& job, Done<std::chrono::milliseconds> done);

  void status(Done<Answers<protocol::SystemStatus>> done, std::optional<std::chrono::milliseconds> within = {});
  void control(protocol::ControlAction action, protocol::ControlScope scope, const std::string& name,
               Done<Answers<protocol::SystemStatus>> done);
  void list(const protocol::JobFilter& filter, uint32_t limit, const ListPosition& after,
            Done<Answers<protocol::JobList>> done, ListOrder order = ListOrder::kOldestFirst);
  void purge(const protocol::JobFilter& filter, Done<Result<int64_t>> done);
  void backup(std::chrono::milliseconds wait, Done<Answers<protocol::BackedUp>> done);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace optserve::client
