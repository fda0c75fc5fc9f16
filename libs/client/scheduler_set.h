// A client's sessions with all schedulers. It decides which of them gets a job and which are asked about one. It is a
// state machine like ClientSession and the service of the client's loop; port i of the loop is scheduler i.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/client_session.h"

namespace optserve::client {

// Remembers which scheduler accepted a job, for the last `jobs_max` jobs.
class JobHomes {
 public:
  explicit JobHomes(size_t jobs_max) : jobs_max_(jobs_max) {}
  void remember(const JobId& job, size_t scheduler);
  std::optional<size_t> find(const JobId& job) const;

 private:
  size_t jobs_max_;
  std::unordered_map<JobId, size_t> homes_;
  std::deque<JobId> oldest_first_;
};

class SchedulerSet final : public transport::Service {
 public:
  using Submitted = std::function<void(Submission)>;
  using JobAnswer = std::function<void(Result<protocol::JobResult>, const Turn&)>;
  using Attached = std::function<void(Result<Follow>, const Turn&)>;
  // The message for a scheduler; nullopt if it is not to be asked.
  using MessageFor = std::function<std::optional<protocol::Message>(const std::string& endpoint)>;
  using AllAnswered = std::function<void(Answers<protocol::Message>)>;

  // `options` hold for each session, except port, endpoint and seed, which are set here.
  SchedulerSet(const std::vector<std::string>& endpoints, const SessionOptions& options);

  // Each of the following calls its callback exactly once, at the deadline at the latest.
  void submit(std::vector<protocol::JobSpec> jobs, JobStream stream, Instant deadline, const Turn& turn,
              Submitted done);
  // `about_job` is a message about this job that is answered with JobStatus.
  void ask_job(const JobId& job, const protocol::Message& about_job, Instant deadline, const Turn& turn,
               JobAnswer done);
  // Follows a job on the scheduler that knows it.
  void attach(const JobId& job, uint64_t text_offset, JobStream stream, Instant deadline, const Turn& turn,
              Attached done);
  void ask_all(const MessageFor& message_for, Instant deadline, const Turn& turn, AllAnswered done);
  // For the scheduler that knows the job or, if that is not known, the one that was reachable last.
  Duration unreachable_for(const JobId& job, Instant now) const;
  void unfollow(const Follow& follow) { sessions_.at(follow.scheduler)->unfollow(follow.id); }
  void close(const Refusal& why, const Turn& turn);

  void on_message(const Peer& from, protocol::Message message, Instant now, Outbox& out) override;
  void on_undeliverable(const Peer& to, protocol::Message message, bool slow, Instant now, Outbox& out) override;
  void on_not_let_in(transport::PortId port, const std::string& why, Instant now, Outbox& out) override;
  void on_connected(transport::PortId port, Instant now, Outbox& out) override;
  void on_tick(Instant now, Outbox& out) override;
  Duration tick_interval() const override;
  void begin_drain(Instant, Outbox&) override {}
  bool is_drained() const override { return true; }

 private:
  struct Batch;
  struct Search;
  struct Round;
  using FoundJob = std::function<void(Result<protocol::JobResult>, size_t scheduler, const Turn&)>;

  size_t choose(const Batch& batch, size_t job, Instant now) const;
  bool is_another_reachable(uint64_t tried) const;
  void dispatch(const std::shared_ptr<Batch>& batch, const std::vector<size_t>& indices, const Turn& turn);
  void send_part(const std::shared_ptr<Batch>& batch, size_t scheduler, uint64_t tried, std::vector<size_t> indices,
                 const Turn& turn);
  void on_part(const std::shared_ptr<Batch>& batch, size_t scheduler, const std::vector<size_t>& indices,
               ClientSession::Submission part, const Turn& turn);
  void search(const JobId& job, const protocol::Message& about_job, Instant deadline, const Turn& turn, FoundJob done);
  void on_found(Search& search, size_t scheduler, Result<protocol::Message> answer, const Turn& turn);
  Refusal nowhere(const Search& search) const;

  std::vector<std::string> endpoints_;
  std::vector<std::unique_ptr<ClientSession>> sessions_;
  JobHomes homes_;
};

}  // namespace optserve::client
