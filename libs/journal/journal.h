// The durable record of jobs: SQLite in WAL mode with synchronous=FULL, one connection in one thread, group commit.
// append() returns at once with a sequence number; the record is on disk once durable() has reached it. The first write
// or sync error is final (a failed sync must not be retried): from then on append() and durable() throw Error, which
// ends the process; after a restart only what is on disk counts.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "protocol/message_types.h"

namespace optserve::journal {

// A job enters the queue.
struct Accepted {
  JobId job;
  uint64_t order = 0;  // monotonic: the order of acceptance; names the job's row in the other records
  int64_t accepted_wall_ms = 0;
  std::string payload_sha256;  // 32 bytes over the canonical spec: same key, same payload => same job
  protocol::JobSpec spec;
  std::string encoded_spec;  // encode_job_spec(spec), if the caller has it: then append() does not look at `spec`
};
// A lease is about to be dispatched: counts the attempt before the work can do harm. token.number 0: the lease is given
// back, because the scheduler stops in order.
struct Leased {
  JobId job;
  uint64_t order = 0;
  LeaseToken token;
  int32_t attempt = 0;
};
// How far a running job is; rides on the next commit, nothing waits for it.
struct Progress {
  JobId job;
  uint64_t order = 0;
  std::vector<TokenId> ids;  // all output ids so far
};
// The job is terminal. The first one wins; a later one is ignored.
struct Finished {
  uint64_t order = 0;
  int64_t expires_wall_ms = 0;  // the result and its key are kept until then
  std::string tenant;
  std::string payload_sha256;
  protocol::JobResult result;
};
using Record = std::variant<Accepted, Leased, Progress, Finished>;

struct OpenJob {
  Accepted accepted;
  int32_t attempts = 0;  // leases that ended without the scheduler's fault
  int32_t crashes = 0;   // scheduler starts that found the job leased, this one included
  std::vector<TokenId> progress;
};
// A key that must keep answering with its finished job.
struct KnownKey {
  std::string tenant, key, payload_sha256;
  JobId job;
  int64_t expires_wall_ms = 0;
};
struct Recovery {
  uint64_t term = 0;  // of this start; already on disk
  uint64_t next_order = 1;
  std::vector<OpenJob> open;   // in order of acceptance
  std::vector<KnownKey> keys;  // of results not yet expired
};

// What the scheduler needs; the journal implements it, tests and volatile mode use MemoryStore.
class JobStore {
 public:
  virtual ~JobStore() = default;
  virtual uint64_t append(Record record) = 0;  // sequence number, from 1, growing
  virtual uint64_t durable() const = 0;
  virtual bool is_durable() const = 0;  // false: volatile mode
  // True while too much waits for the disk: new jobs are refused as busy.
  virtual bool is_congested() const = 0;
  // Asks for a finished job's result; the answer (nullopt: unknown or expired) is delivered by poll_results(). It sees
  // every record appended before.
  virtual void request_result(const JobId& job, uint64_t request) = 0;
  struct ResultAnswer {
    uint64_t request = 0;
    JobId job;
    std::optional<protocol::JobResult> result;
  };
  virtual std::vector<ResultAnswer> poll_results() = 0;
};

struct JournalOptions {
  std::string path;  // database file; its folder must exist on a local disk
  size_t batch_records_max = 256;
  size_t batch_bytes_max = 1 << 20;
  size_t queue_records_max = 4096;      // is_congested() above
  int64_t checkpoint_bytes = 64 << 20;  // of WAL, forced; smaller ones happen in idle moments
  int64_t database_bytes_max = 0;       // 0: as much as the disk holds
};

class Journal final : public JobStore {
 public:
  // Takes an exclusive lock, checks integrity, refuses other schemas, raises the term, recovers. A second process on
  // the same file, a corrupt or foreign file: Error that says so and what to do.
  static std::unique_ptr<Journal> open(const JournalOptions& options, Recovery& recovery);
  ~Journal() override;  // commits what is appended, then closes

  uint64_t append(Record record) override;  // throws Error after a failed write
  uint64_t durable() const override;        // throws Error after a failed write
  bool is_durable() const override { return true; }
  bool is_congested() const override;
  void request_result(const JobId& job, uint64_t request) override;
  std::vector<ResultAnswer> poll_results() override;

  int event_fd() const;    // eventfd, readable when durable() moved or the journal failed
  int results_fd() const;  // eventfd, readable when poll_results() has answers

 private:
  struct Impl;
  explicit Journal(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Keeps nothing on disk; everything is "durable" at once. For --volatile, tests and the simulation.
class MemoryStore final : public JobStore {
 public:
  explicit MemoryStore(size_t results_max = 10'000) : results_max_(results_max) {}

  uint64_t append(Record record) override;
  uint64_t durable() const override { return sequence_; }
  bool is_durable() const override { return false; }
  bool is_congested() const override { return false; }
  void request_result(const JobId& job, uint64_t request) override;
  std::vector<ResultAnswer> poll_results() override;

 private:
  size_t results_max_;
  uint64_t sequence_ = 0;
  std::deque<JobId> oldest_first_;
  std::unordered_map<JobId, protocol::JobResult> results_;
  std::vector<ResultAnswer> answers_;
};

}  // namespace optserve::journal
