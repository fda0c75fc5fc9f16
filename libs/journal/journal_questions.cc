// The questions about ended jobs.
#include <limits>

#include "journal/journal_statements.h"
#include "protocol/codec.h"

namespace optserve::journal {
namespace {

// The result if it is as it was written; otherwise throws DamagedError.
protocol::JobResult checked(const JobId& job, bool is_whole, Result<protocol::JobResult> result) {
  if (!is_whole || !result.ok()) {
    throw DamagedError("the stored result of job " + job.hex() +
                       " does not match its checksum: the journal is damaged; restore the latest backup");
  }
  return std::move(result).value();
}

// Conditions on rows of `results`, with parameters from ?3 on.
struct Conditions {
  explicit Conditions(const protocol::JobFilter& filter) {
    const std::string state = std::to_string(filter.state ? static_cast<int>(*filter.state) : 0);
    // Uses the index that leaves the fewest rows; without one, rows are read in their order. The + keeps SQLite from
    // choosing another index.
    if (filter.job) {
      index = "id = ?3";
    } else if (filter.tenant && !filter.group.empty()) {
      index = "tenant = ?4 AND grp = ?6 AND grp <> ''";
    } else if (filter.state) {
      index = "state = " + state;
    }
    if (filter.job) rest += " AND +id = ?3";
    if (filter.state) rest += " AND +state = " + state;
    if (filter.tenant) rest += " AND +tenant = ?4";
    if (!filter.model.empty()) rest += " AND +model = ?5";
    if (!filter.group.empty()) rest += " AND +grp = ?6";
  }
  std::string index = "1", rest = "1";
};

}  // namespace

// The orders of those jobs that match, among the next `window` jobs that the index yields.
struct JournalDatabase::Window {
  std::vector<uint64_t> matching;
  uint64_t last = 0;
  bool is_last = false;
};

JournalDatabase::Window JournalDatabase::look(const protocol::JobFilter& filter, uint64_t after, uint32_t window,
                                              bool newest_first) {
  const Conditions conditions(filter);
  if (newest_first && after == 0) after = std::numeric_limits<int64_t>::max();
  // Parameters that a filter does not use are bound as well, so that the numbers stay the same.
  Statement rows(database_, "SELECT seq, " + conditions.rest + " FROM results WHERE seq " + (newest_first ? "<" : ">") +
                                " ?1 AND " + conditions.index +
                                " AND ?3 IS NOT NULL AND ?4 IS NOT NULL AND ?5 IS NOT NULL AND ?6 IS NOT NULL"
                                " ORDER BY seq " +
                                (newest_first ? "DESC" : "ASC") + " LIMIT ?2");
  const std::string id(filter.job ? bytes_of(*filter.job) : std::string_view());
  const std::string tenant = filter.tenant.value_or("");
  rows.bind(1, static_cast<int64_t>(after)).bind(2, window).bind_blob(3, id);
  rows.bind_text(4, tenant).bind_text(5, filter.model).bind_text(6, filter.group);
  Window found;
  uint32_t looked = 0;
  for (; rows.step(); ++looked) {
    found.last = static_cast<uint64_t>(rows.column_number(0));
    if (rows.column_number(1) != 0) found.matching.push_back(found.last);
  }
  found.is_last = looked < window;
  return found;
}

ResultFound JournalDatabase::find_result(const JobId& job, Instant now) {
  Statement& find = statements_->find;
  find.bind_blob(1, bytes_of(job)).bind(2, time_->ms(now));
  if (!find.step()) return {job, std::nullopt};
  const bool is_whole = find.column_number(0) == 1;
  auto result = protocol::decode_job_result(find.column_bytes(1));
  find.reset();
  return {job, checked(job, is_whole, std::move(result))};
}

DeadFound JournalDatabase::find_dead(const JobId& job, Instant now) {
  Statement& find = statements_->find;
  find.bind_blob(1, bytes_of(job)).bind(2, time_->ms(now));
  if (!find.step()) return {};
  const bool is_whole = find.column_number(0) == 1;
  auto result = protocol::decode_job_result(find.column_bytes(1));
  const bool is_dead = find.column_number(6) == static_cast<int64_t>(protocol::JobState::kDead);
  DeadFound found;
  found.order = static_cast<uint64_t>(find.column_number(2));
  Accepted accepted;
  accepted.job = job;
  accepted.order = found.order;
  accepted.accepted_wall_ms = find.column_number(3);
  accepted.payload_sha256 = find.column_text(4);
  accepted.encoded_spec = find.column_text(5);
  find.reset();
  checked(job, is_whole, std::move(result));
  // Dead jobs of version 1 do not have their request.
  if (!is_dead || accepted.encoded_spec.empty()) return {};
  auto spec = protocol::decode_job_spec(accepted.encoded_spec);
  if (!spec.ok()) throw DamagedError("the stored request of job " + job.hex() + ": " + spec.refusal().message);
  accepted.spec = std::move(spec).value();
  found.job = std::move(accepted);
  return found;
}

JournalDatabase::Part<protocol::JobSummary> JournalDatabase::list_ended(const ListEnded& question, uint32_t window,
                                                                        Instant now) {
  const Window found = look(question.filter, question.after, window, question.newest_first);
  Part<protocol::JobSummary> part;
  part.last = found.last;
  part.is_last = found.is_last;
  Statement& row = statements_->row;
  for (const uint64_t order : found.matching) {
    row.bind(1, static_cast<int64_t>(order));
    if (!row.step()) continue;
    Finished ended;
    ended.order = order;
    ended.expires_at_ms = row.column_number(4);
    ended.accepted_wall_ms = row.column_number(5);
    ended.tenant = row.column_text(6);
    ended.model = row.column_text(8);
    const bool is_whole = row.column_number(0) == 1;
    const JobId job = id_from(row.column_bytes(2));
    auto result = protocol::decode_job_result(row.column_bytes(11));
    row.reset();
    if (ended.expires_at_ms <= time_->ms(now)) continue;
    ended.result = checked(job, is_whole, std::move(result));
    part.items.push_back(summary_of(ended));
  }
  return part;
}

JournalDatabase::Part<KnownKey> JournalDatabase::purge_ended(const protocol::JobFilter& filter, uint64_t after,
                                                             uint32_t window, Instant now) {
  now_ = now;
  const Window found = look(filter, after, window, false);
  Part<KnownKey> part;
  part.last = found.last;
  part.is_last = found.is_last;
  if (found.matching.empty()) return part;
  Transaction transaction(*this);
  Statement& row = statements_->row;
  for (const uint64_t order : found.matching) {
    row.bind(1, static_cast<int64_t>(order));
    if (!row.step()) continue;
    part.items.push_back({row.column_text(6), row.column_text(9), row.column_text(10), id_from(row.column_bytes(2)),
                          row.column_number(4), row.column_text(7),
                          static_cast<protocol::JobState>(row.column_number(3))});
    row.reset();
    statements_->erase_result.bind(1, static_cast<int64_t>(order)).run();
  }
  transaction.commit();
  return part;
}

int64_t JournalDatabase::purge_expired(Instant now, int64_t limit) {
  now_ = now;
  Statement& expired = statements_->has_expired;
  expired.bind(1, time_->ms(now));
  const bool is_any = expired.step();
  expired.reset();
  if (!is_any) return 0;
  Transaction transaction(*this);
  statements_->purge.bind(1, time_->ms(now)).bind(2, limit).run();
  const int64_t removed = database_.changes();
  transaction.commit();
  return removed;
}

}  // namespace optserve::journal
