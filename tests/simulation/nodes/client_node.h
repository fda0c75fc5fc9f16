// Programs that use the client library: the real session, a list of jobs to submit, and an application that checks what
// it gets. After a crash it comes back with the same keys, or with the ids and the text that it had kept.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/client_session.h"
#include "simulation/ledger.h"
#include "simulation/nodes/process.h"
#include "simulation/workload.h"

namespace optserve::simulation {

inline constexpr seconds kCallTimeout{10};

// A client of the scheduler: its service is a session of the client library.
class SessionProcess : public Process {
 protected:
  SessionProcess(Environment& environment, Network& network) : Process(environment, network, 0) {}
  std::unique_ptr<transport::Service> make_service() final;
  void on_crash() override { session_ = nullptr; }

  client::ClientSession* session_ = nullptr;  // nullptr: the process does not run
};

// Of an application that did not submit this job: checks what it gets.
client::JobStream watching(const Ledger& ledger, const Ledger::Entry& entry);

class ClientNode final : public SessionProcess {
 public:
  ClientNode(Environment& environment, Network& network, Ledger& ledger, std::vector<PlannedJob> plan);
  bool is_done() const;
  std::string unfinished() const;

 private:
  struct Job {
    PlannedJob plan;
    Instant next_submit{};
    bool submitting = false;
    bool followed = false;
    bool cancelled = false;
    bool done = false;  // has its result, its refusal, or learned that the result has expired
    std::optional<JobId> id;
    std::string text;  // as delivered, over all its lives
  };
  // What one stream of the session delivered.
  struct Seen {
    size_t job = 0;
    std::string text;
    bool ended = false;
  };
  struct Batch {
    std::vector<size_t> jobs;
    std::map<JobId, Seen> seen;
  };

  void on_crash() override;
  void on_turn() override;
  void on_delivered(const protocol::Message& message) override { ledger_.on_client_got(message); }
  void submit(const std::vector<size_t>& jobs);
  void on_submitted(Batch& batch, const Result<std::vector<protocol::SubmitOutcome>>& outcomes);
  void on_outcome(size_t index, const protocol::SubmitOutcome& outcome);
  void follow(size_t index);
  void follow_a_stranger();
  void cancel(size_t index);
  void ask_something();
  client::JobStream stream(std::shared_ptr<Batch> batch);
  Seen& seen_of(Batch& batch, const JobId& job) const;
  void on_text(Batch& batch, std::string_view piece, const protocol::JobEvent& event);
  void on_finished(Batch& batch, const protocol::JobResult& result);

  Ledger& ledger_;
  std::vector<Job> jobs_;
};

// Keeps many small jobs under way.
class BulkClientNode final : public SessionProcess {
 public:
  // All clients of a world take their jobs from `next_job`.
  BulkClientNode(Environment& environment, Network& network, Ledger& ledger, uint64_t& next_job);
  bool is_done() const { return open_.empty() && next_job_ >= env_.settings.jobs; }

 private:
  // Jobs that were submitted together.
  struct Batch {
    uint64_t number = 0;
    std::vector<uint64_t> jobs;
    std::vector<JobId> ids;  // as answered; zero: not accepted
  };
  void on_crash() override;
  void on_turn() override;
  void submit(std::vector<uint64_t> jobs);
  void on_lost(const Batch& batch);
  void submit_again(const Batch& batch, size_t place);

  Ledger& ledger_;
  uint64_t& next_job_;
  std::vector<uint64_t> again_;        // to be submitted again
  std::map<uint64_t, uint64_t> open_;  // jobs and the batches that they were last submitted in; 0: in again_
  uint64_t batches_ = 0;
};

}  // namespace optserve::simulation
