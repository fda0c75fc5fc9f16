// Where the scheduler keeps what must survive a restart. It takes records of what happened, and answers questions about
// jobs that have ended. Implemented by the journal (journal.h), and by MemoryStore, which keeps nothing on disk.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "protocol/client_messages.h"
#include "protocol/operator_messages.h"

namespace optserve::journal {

// --- Records: what happened. Their order is the order in which they take effect.

// A job enters the queue.
struct Accepted {
  JobId job;
  uint64_t order = 0;            // grows from job to job; the other records name the job's row by it
  int64_t accepted_at_ms = 0;    // by time_ms()
  int64_t accepted_wall_ms = 0;  // for people
  std::string payload_sha256;    // 32 bytes, of encode_job_payload(): a submit of the same key and payload is this job
  protocol::JobSpec spec;
  std::string encoded_spec;  // encode_job_spec(spec) if the caller has it; then append() does not read `spec`
};
// A lease is about to be dispatched; the attempt is counted before the work can crash anything. If token.number is 0,
// the lease has ended without a result. `loss` then says why, and is empty if the scheduler itself took back the lease.
struct Leased {
  JobId job;
  uint64_t order = 0;
  LeaseToken token;
  int32_t attempt = 0;
  std::string loss{};
};
// How far a running job is. Nothing waits for this record, which is written with the next commit.
struct Progress {
  JobId job;
  uint64_t order = 0;
  std::vector<TokenId> ids;  // all output ids so far
};
// The job has ended. Only the first such record counts. Later ones are ignored, and so is a record whose token is not
// the job's current lease.
struct Finished {
  uint64_t order = 0;
  LeaseToken token;           // the lease that produced the result; number 0: the job ended without one
  int64_t expires_at_ms = 0;  // by time_ms(): until then the result and its key are kept
  int64_t accepted_wall_ms = 0;
  std::string tenant;
  std::string model;
  std::string payload_sha256;
  protocol::JobResult result;
  std::string encoded_spec;  // of a dead job, so that it can be queued again
};
// A dead job is queued again under its id but with a new order, as if it were accepted now.
struct Requeued {
  uint64_t dead_order = 0;
  Accepted accepted;
};
// A mode that an operator set. It lasts until it is set again; kOpen removes it.
struct ModeSet {
  protocol::ControlScope scope = protocol::ControlScope::kQueue;
  std::string name;
  protocol::QueueMode mode = protocol::QueueMode::kOpen;
};
using Record = std::variant<Accepted, Leased, Progress, Finished, Requeued, ModeSet>;

// --- Questions. The answer includes every record that was appended before the question.

struct FindResult {
  JobId job;
};
// Ended jobs in order of acceptance, with an order above `after`; or newest first, with an order below it (0 means
// all).
struct ListEnded {
  protocol::JobFilter filter;
  uint64_t after = 0;
  uint32_t limit = 0;
  bool newest_first = false;
};
struct FindDead {
  JobId job;
};
// Forgets ended jobs. The answer comes once that is durable.
struct PurgeEnded {
  protocol::JobFilter filter;
};
// Copies the journal to its backup folder.
struct BackUp {};
using Question = std::variant<FindResult, ListEnded, FindDead, PurgeEnded, BackUp>;

// The key of an ended job. A submit with this key is answered with the job.
struct KnownKey {
  std::string tenant, key, payload_sha256;  // an empty digest, of an older version, matches every payload
  JobId job;
  int64_t expires_at_ms = 0;
  std::string group{};
  protocol::JobState state = protocol::JobState::kSucceeded;
};
struct ResultFound {
  JobId job;
  std::optional<protocol::JobResult> result;  // nullopt: unknown or expired
};
struct EndedListed {
  std::vector<protocol::JobSummary> jobs;
  bool more = false;
};
struct DeadFound {
  uint64_t order = 0;
  std::optional<Accepted> job;  // with its spec; nullopt: not a dead job
};
struct EndedPurged {
  std::vector<KnownKey> forgotten;
};
struct BackUpDone {
  std::string file;
  int64_t bytes = 0;
};
struct Answer {
  uint64_t request = 0;
  std::variant<ResultFound, EndedListed, DeadFound, EndedPurged, BackUpDone, Refusal> body;
};

// --- What is found at the start.

struct OpenJob {
  Accepted accepted;
  int32_t attempts = 0;  // leases that did not end because of the scheduler itself
  int32_t crashes = 0;   // starts of the scheduler, including this one, at which the job was leased
  std::vector<std::string> losses;
  std::vector<TokenId> progress;
};
struct Recovery {
  uint64_t term = 0;  // of this start; already on disk
  uint64_t next_order = 1;
  std::vector<OpenJob> open;   // in order of acceptance
  std::vector<KnownKey> keys;  // of results not yet expired
  std::vector<ModeSet> modes;
};

class JobStore {
 public:
  virtual ~JobStore() = default;
  virtual uint64_t append(Record record) = 0;  // returns growing sequence numbers from 1 on
  virtual uint64_t durable() const = 0;
  virtual bool is_durable() const = 0;  // false: volatile mode
  // The clock for ages and expiries of records, also across restarts. It never jumps: see base/lasting_time.h.
  virtual int64_t time_ms(Instant now) const = 0;
  // True while too much waits for the disk, so that new jobs are refused as busy.
  virtual bool is_congested() const = 0;
  // True while the disk is full: new jobs are refused, and known jobs go on.
  virtual bool is_full() const = 0;
  // The answer, delivered by poll_answers(), carries `request`.
  virtual void ask(uint64_t request, Question question) = 0;
  virtual std::vector<Answer> poll_answers() = 0;
};

// Keeps ended jobs in memory; everything is "durable" at once. For --volatile and tests.
class MemoryStore final : public JobStore {
 public:
  explicit MemoryStore(size_t results_max = 10'000) : results_max_(results_max) {}

  uint64_t append(Record record) override;
  uint64_t durable() const override { return sequence_; }
  bool is_durable() const override { return false; }
  int64_t time_ms(Instant now) const override {
    return std::chrono::floor<milliseconds>(now.time_since_epoch()).count();
  }
  bool is_congested() const override { return false; }
  bool is_full() const override { return false; }
  void ask(uint64_t request, Question question) override;
  std::vector<Answer> poll_answers() override;

 private:
  using Body = decltype(Answer::body);
  const Finished* find(const JobId& job) const;
  void forget(uint64_t order);
  Body answer(const FindResult& question) const;
  Body answer(const ListEnded& question) const;
  Body answer(const FindDead& question) const;
  Body answer(const PurgeEnded& question);
  Body answer(const BackUp& question) const;

  size_t results_max_;
  uint64_t sequence_ = 0;
  std::map<uint64_t, Finished> ended_;  // by order
  std::unordered_map<JobId, uint64_t> orders_;
  std::vector<Answer> answers_;
};

// Whether an ended job meets the filter's conditions, and its entry in a list.
bool matches(const protocol::JobFilter& filter, const Finished& ended);
protocol::JobSummary summary_of(const Finished& ended);

}  // namespace optserve::journal
