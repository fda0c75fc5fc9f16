// Turns records into the calls of a transaction. Records of different jobs do not touch each other's rows, so records
// of one kind are combined into one statement, as long as the records of each job keep their order.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "journal/job_store.h"
#include "journal/journal_storage.h"
#include "journal/postgres/connection.h"

namespace optserve::journal {

// What accompanies every commit. The fence compares term and number of the commit with those in the database, and fails
// with kFenceState if another scheduler has taken over.
struct CommitMark {
  uint64_t term = 0;
  uint64_t number = 0;  // of this commit
  int64_t time_ms = 0;
  std::string boot{};
  int64_t uptime_ms = 0;
};
inline constexpr const char* kFenceState = "22012";

// The statements of all batches, to be prepared.
std::span<const Prepared> batch_statements();
// The calls that apply the records. Dead jobs are kept at least until `dead_until_ms`, by the journal's time.
std::vector<Call> calls_of(std::span<const Record> records, int64_t dead_until_ms);
std::vector<Call> calls_of(const MergeStep& step, int64_t dead_until_ms);
// The whole transaction: "BEGIN", the fence, the calls, "COMMIT".
std::vector<Call> fenced_calls(const CommitMark& mark, uint64_t next_order, std::vector<Call> calls);
// How many results were ignored because of their lease, according to the answers to a whole transaction.
uint64_t fenced_in(std::span<const Call> calls, std::span<const Rows> answers);
uint64_t next_order_after(std::span<const Record> records);

}  // namespace optserve::journal
