// The checker beside the system: it sees every record that the scheduler writes, every message that it sends and every
// piece of text that an application gets, remembers what was promised, and throws a Violation when it is broken.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "journal/job_store.h"
#include "protocol/codec.h"
#include "scheduler/scheduler_service.h"
#include "simulation/environment.h"

namespace optserve::simulation {

struct OnDisk;

class Ledger {
 public:
  explicit Ledger(Environment& environment) : env_(environment) {}

  struct End {
    protocol::JobState state = protocol::JobState::kSucceeded;
    uint64_t digest = 0;
    int64_t expires_wall_ms = 0;
  };
  struct Entry {
    JobId id;
    std::string name;  // tenant and key
    std::shared_ptr<const protocol::JobSpec> spec;
    uint64_t order = 0;
    bool acked = false;
    bool cancelled = false;     // someone asked for it
    uint64_t lease = 0;         // the present one, by the records; 0: none
    int32_t attempts = 0;       // by the records
    int32_t lease_attempt = 0;  // the attempt that its newest lease counted as
    Instant deadline{};         // on the scheduler's clock
    std::optional<End> end;     // appended
    std::optional<End> shown;   // seen by a client
  };

  // The scheduler starts: what it was given, and its clocks.
  void on_start(const journal::Recovery& recovery, const OnDisk& disk, Instant start, int64_t wall_ms);
  // Its clock, before each call into it.
  void set_clock(Instant scheduler_now, int64_t wall_ms);

  void on_append(const journal::Record& record);
  // A message leaves the scheduler.
  void on_sent(const protocol::Message& message, const OnDisk& disk);
  // A message reaches a client, or the system's answer an application.
  void on_client_got(const protocol::Message& message);
  void on_outcome(const protocol::JobSpec& spec, const protocol::SubmitOutcome& outcome);
  void on_cancel(const JobId& job);
  void on_purged(const JobId& job);
  // Everything appended is on disk: memory and disk must agree.
  void compare(const scheduler::SchedulerService& service, const OnDisk& disk);
  void check_leases(const scheduler::SchedulerService& service) const;

  // An application was told that this job is not known, which is right once its result has expired.
  void check_lost(const JobId& job) const;
  bool is_gone(const JobId& job) const;
  void check_stream(const protocol::JobSpec& spec, const std::string& text) const;
  void check_result(const protocol::JobSpec& spec, const protocol::JobResult& result) const;
  bool is_current(uint64_t lease) const { return current_leases_.contains(lease); }

  const Entry* find(const JobId& job) const;
  std::vector<const Entry*> open_entries() const;  // not ended, in order
  uint64_t accepted() const { return accepted_; }
  uint64_t ended() const { return ended_; }
  uint64_t succeeded() const { return succeeded_; }
  uint64_t dispatched() const { return dispatched_; }
  // The scheduler was restarted, which counts against jobs that were leased.
  uint64_t starts() const { return starts_; }

  [[noreturn]] void fail(Invariant invariant, const std::string& what) const;

 private:
  void on(const journal::Accepted& record);
  void on(const journal::Leased& record);
  void on(const journal::Progress& record);
  void on(const journal::Finished& record);
  void on(const journal::Requeued&) {}
  void on(const journal::ModeSet&) {}
  Entry& entry_of(const JobId& job);
  void check_end(const Entry& entry, const protocol::JobResult& result) const;
  void check_ids(const protocol::JobSpec& spec, const std::vector<TokenId>& ids, Invariant invariant) const;
  void check_dispatch(const protocol::Dispatch& dispatch, const OnDisk& disk);
  void show(const protocol::JobResult& result, const char* where);
  const Model::Reference& reference(const protocol::JobSpec& spec) const;

  Environment& env_;
  std::unordered_map<JobId, Entry> entries_;
  std::unordered_map<std::string, JobId> names_;        // by the records
  std::unordered_map<std::string, JobId> acked_names_;  // as clients were told
  std::unordered_map<uint64_t, JobId> current_leases_;
  mutable std::string reference_of_;
  mutable Model::Reference reference_;
  Instant scheduler_now_{};
  int64_t wall_ms_ = 0;
  int64_t wall_max_ = 0;
  uint64_t term_ = 0;
  uint64_t accepted_ = 0, ended_ = 0, succeeded_ = 0, dispatched_ = 0, starts_ = 0;
};

}  // namespace optserve::simulation
