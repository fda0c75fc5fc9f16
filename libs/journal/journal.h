// The durable record of jobs: SQLite in WAL mode with synchronous=FULL, one connection in one thread, group commit.
// append() returns at once with a sequence number; the record is on disk once durable() has reached it. The first write
// or sync error ends the process (a failed sync must not be retried); a full disk is reported through `failure()`
// before that.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "protocol/message_types.h"

namespace optserve::journal {

// A job enters the queue.
struct Accepted {
  JobId job;
  uint64_t order = 0;  // monotonic: the order of acceptance
  int64_t accepted_wall_ms = 0;
  std::string payload_sha256;  // 32 bytes over the canonical spec: same key, same payload => same job
  protocol::JobSpec spec;
};
// A lease is about to be dispatched: counts the attempt before the work can do harm.
struct Leased {
  JobId job;
  LeaseToken token;
  int32_t attempt = 0;
};
// How far a running job is; rides on the next commit, nothing waits for it.
struct Progress {
  JobId job;
  std::vector<TokenId> ids;  // all output ids so far
};
// The job is terminal. The first one wins; a later one is ignored.
struct Finished {
  protocol::JobResult result;
  int64_t finished_wall_ms = 0;
};
using Record = std::variant<Accepted, Leased, Progress, Finished>;

struct OpenJob {
  Accepted accepted;
  int32_t attempts = 0;
  bool was_leased = false;
  std::vector<TokenId> progress;
};
// A key that must keep answering with its job.
struct KnownKey {
  std::string tenant, key, payload_sha256;
  JobId job;
};
struct Recovery {
  uint64_t term = 0;  // of this start; already on disk
  uint64_t next_order = 1;
  std::vector<OpenJob> open;   // in order of acceptance
  std::vector<KnownKey> keys;  // of open jobs and of results not yet expired
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
  // Asks for a finished job's result; the answer (nullopt: unknown or expired) is delivered by poll_results().
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
};

class Journal final : public JobStore {
 public:
  // Takes an exclusive lock, checks integrity, migrates or refuses other schemas, raises the term, recovers. A second
  // process on the same file, a corrupt or foreign file: Error that says so and what to do.
  static std::unique_ptr<Journal> open(const JournalOptions& options, Recovery& recovery);
  ~Journal() override;  // commits what is appended, then closes

  uint64_t append(Record record) override;
  uint64_t durable() const override;
  bool is_durable() const override { return true; }
  bool is_congested() const override;
  void request_result(const JobId& job, uint64_t request) override;
  std::vector<ResultAnswer> poll_results() override;

  int event_fd() const;  // readable when durable() moved or results wait

 private:
  struct Impl;
  explicit Journal(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Keeps nothing on disk; everything is "durable" at once. For --volatile, tests and the simulation.
class MemoryStore final : public JobStore {
 public:
  uint64_t append(Record record) override;
  uint64_t durable() const override { return sequence_; }
  bool is_durable() const override { return false; }
  bool is_congested() const override { return false; }
  void request_result(const JobId& job, uint64_t request) override;
  std::vector<ResultAnswer> poll_results() override;

 private:
  uint64_t sequence_ = 0;
  std::vector<std::pair<JobId, protocol::JobResult>> results_;  // newest last, bounded
  std::vector<ResultAnswer> answers_;
};

}  // namespace optserve::journal
