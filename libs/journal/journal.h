// The durable record of jobs: SQLite in WAL mode with synchronous=FULL, one connection in one thread, group commit.
// append() returns at once with a sequence number; the record is on disk once durable() has reached it. The first write
// or sync error is final (a failed sync must not be retried): from then on append() and durable() throw Error, which
// ends the process; after a restart only what is on disk counts.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "journal/job_store.h"

namespace optserve::journal {

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
  bool is_full() const override;
  void ask(uint64_t request, Question question) override;
  std::vector<Answer> poll_answers() override;

  int event_fd() const;    // eventfd, readable when durable() moved or the journal failed
  int answers_fd() const;  // eventfd, readable when poll_answers() has answers

 private:
  struct Impl;
  explicit Journal(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace optserve::journal
