// The checker beside the system: it sees every record that the scheduler writes, every message that it sends and every
// piece of text that an application gets, remembers what was promised, and throws a Violation when it is broken.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "journal/job_store.h"
#include "protocol/codec.h"
#include "scheduler/scheduler_service.h"
#include "simulation/environment.h"
#include "simulation/fair_share.h"

namespace optserve::simulation {

struct OnDisk;

class Ledger {
 public:
  explicit Ledger(Environment& environment) : env_(environment), shares_(environment) {}

  struct End {
    protocol::JobState state = protocol::JobState::kSucceeded;
    uint64_t digest = 0;
  };
  struct Entry {
    JobId id;
    std::string name;  // tenant and key
    std::shared_ptr<const protocol::JobSpec> spec;
    uint64_t order = 0;
    bool acked = false;
    bool cancelled = false;       // someone asked for it
    uint64_t lease = 0;           // the present one, by the records; 0: none
    int32_t attempts = 0;         // by the records
    int32_t lease_attempt = 0;    // the attempt that its newest lease counted as
    bool started = false;         // has had a lease
    Instant accepted_at{};        // for the first time or again
    Instant begins{};             // on the scheduler's clock, as the next two: its times count from here
    Instant deadline{};           // in all
    Instant attempt_at{};         // start of the present attempt
    std::optional<End> end;       // appended
    std::optional<End> shown;     // seen by a client
    std::vector<uint64_t> past;   // digests of the ends of earlier lives: it was dead and put back
    uint64_t promised_order = 0;  // an operator was told that a life of this order, or a later one, is durable
  };

  // The scheduler starts: what it was given, and its clocks.
  void on_start(const journal::Recovery& recovery, const OnDisk& disk, Instant start, int64_t store_ms);
  // Its clock, before each call into it.
  void set_clock(Instant scheduler_now) { scheduler_now_ = scheduler_now; }

  // What runs from now on; nullptr: nothing does.
  void watch(const scheduler::SchedulerService* service) { service_ = service; }
  void on_append(const journal::Record& record);
  // A message leaves the scheduler.
  void on_sent(const protocol::Message& message, const OnDisk& disk);
  // A message reaches a client, or the system's answer an application.
  void on_client_got(const protocol::Message& message);
  void on_outcome(const protocol::JobSpec& spec, const protocol::SubmitOutcome& outcome);
  void on_cancel(const JobId& job);
  void on_cancel(const protocol::GetGroup& group);
  // An operator was told that this job is queued again. Before that, a client had seen it dead in the life that has
  // this order.
  void on_put_back(const JobId& job, uint64_t dead_order);
  void on_purged(const JobId& job);
  // The store removed its result because its time is over.
  void on_expired(const JobId& job);
  // Everything appended is on disk: memory and disk must agree.
  void compare(const scheduler::SchedulerService& service, const OnDisk& disk);
  void check_leases(const scheduler::SchedulerService& service) const;
  // It has just looked at the time: no job is open after its own.
  void check_times(const scheduler::SchedulerService& service) const;
  // What an answer about this group must say, as of the last record.
  protocol::GroupStatus count(const protocol::GetGroup& group) const;
  void check_group(const protocol::GroupStatus& told, const protocol::GroupStatus& counted) const;

  // An application was told that this job is not known, which is right once its result has expired.
  void check_lost(const JobId& job) const;
  bool is_gone(const JobId& job) const;
  void check_stream(const protocol::JobSpec& spec, const std::string& text) const;
  void check_result(const protocol::JobSpec& spec, const protocol::JobResult& result) const;
  bool is_current(uint64_t lease) const { return current_leases_.contains(lease); }

  const Entry* find(const JobId& job) const;
  std::vector<const Entry*> open_entries() const;  // not ended, in order
  std::vector<const Entry*> dead_entries() const;  // the same
  // By an operator; "" names the queue of all models.
  bool is_held(protocol::ControlScope scope, const std::string& name) const { return held_.contains({scope, name}); }
  bool is_anything_held() const { return !held_.empty(); }
  uint64_t accepted() const { return accepted_; }
  uint64_t ended() const { return ended_; }
  uint64_t succeeded() const { return succeeded_; }
  uint64_t dispatched() const { return dispatched_; }
  uint64_t put_back() const { return put_back_; }
  // The scheduler was restarted, which counts against jobs that were leased.
  uint64_t starts() const { return starts_; }

  [[noreturn]] void fail(Invariant invariant, const std::string& what) const;

 private:
  void on(const journal::Accepted& record);
  void on(const journal::Leased& record);
  void on(const journal::Progress& record);
  void on(const journal::Finished& record);
  void on(const journal::Requeued& record);
  void on(const journal::ModeSet& record);
  Entry& add(const journal::Accepted& record);
  void set_times(Entry& entry, int64_t age_ms) const;
  // Of the limits of its time the one that ends first; `runs`: it holds a lease.
  static Instant limit_of(const Entry& entry, bool runs);
  static uint64_t digest_of(const protocol::JobResult& result);
  static End end_of(const journal::Finished& record);
  template <class F>
  std::vector<const Entry*> entries_that(F&& are) const;
  bool has_mode(protocol::ControlScope scope, const std::string& name, protocol::QueueMode mode) const;
  void check_open_for(const protocol::JobSpec& spec) const;
  void check_start(const Entry& entry) const;
  Entry& entry_of(const JobId& job);
  static constexpr milliseconds kClockRounding{2};  // of a time that the journal keeps in milliseconds
  // Its result need not be there any more.
  bool has_expired(const Entry& entry) const;
  bool watches_shares() const { return service_ != nullptr && !env_.settings.large; }
  void check_end(const Entry& entry, const protocol::JobResult& result) const;
  void check_ids(const protocol::JobSpec& spec, const std::vector<TokenId>& ids, Invariant invariant) const;
  void check_dispatch(const protocol::Dispatch& dispatch, const OnDisk& disk);
  static bool is_of_earlier_life(const Entry& entry, const protocol::JobResult& result);
  void show(const protocol::JobResult& result, const char* where);
  const Model::Reference& reference(const protocol::JobSpec& spec) const;

  Environment& env_;
  const scheduler::SchedulerService* service_ = nullptr;
  FairShare shares_;
  std::unordered_map<JobId, Entry> entries_;
  std::unordered_map<std::string, JobId> names_;        // by the records
  std::unordered_map<std::string, JobId> acked_names_;  // as clients were told
  std::unordered_map<JobId, uint64_t> purged_;          // dead jobs, with the digests of their ends
  std::unordered_map<uint64_t, Instant> kept_until_;    // results, by order: as long as they are promised
  std::unordered_map<uint64_t, JobId> current_leases_;
  std::map<std::pair<protocol::ControlScope, std::string>, protocol::QueueMode> held_;  // by the records
  mutable std::string reference_of_;
  mutable Model::Reference reference_;
  Instant scheduler_now_{};
  uint64_t term_ = 0;
  uint64_t accepted_ = 0, ended_ = 0, succeeded_ = 0, dispatched_ = 0, starts_ = 0, put_back_ = 0;
};

}  // namespace optserve::simulation
