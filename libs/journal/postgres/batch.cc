#include "journal/postgres/batch.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/limits.h"
#include "base/utf8.h"
#include "journal/postgres/row_sum.h"
#include "protocol/codec.h"

namespace optserve::journal {
namespace {

constexpr const char* kFence = "fence";
constexpr const char* kAccept = "accept";
constexpr const char* kLease = "lease";
constexpr const char* kProgress = "progress";
constexpr const char* kFinish = "finish";
constexpr const char* kRequeue = "requeue";
constexpr const char* kSetMode = "set_mode";
constexpr const char* kOpenMode = "open_mode";

// The limit of a job's losses is that of the journal in a file; it bounds the growth of a job.
constexpr Prepared kStatements[] = {
    {"begin", "BEGIN"},
    {"commit", "COMMIT"},
    // Divides by zero, which aborts the transaction, unless the row is still ours.
    {kFence,
     "WITH ours AS (UPDATE meta SET next_seq = greatest(next_seq, $3::bigint), commits = $2::bigint, "
     "time_ms = $4::bigint, boot = $5::bytea, uptime_ms = $6::bigint "
     "WHERE term = $1::bigint AND commits = $2::bigint - 1 RETURNING 1) SELECT 1 / count(*) FROM ours"},
    {kAccept,
     "INSERT INTO jobs(seq, id, accepted_at_ms, accepted_wall_ms, sha256, crc, spec_crc, spec) SELECT * FROM "
     "unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bigint[], "
     "$8::bytea[])"},
    {kLease,
     "INSERT INTO work AS w(seq, attempts, lease_term, lease, crc, losses) "
     "SELECT e.seq, attempts, term, lease, crc, loss FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], "
     "$4::bigint[], $5::bigint[], $6::bytea[]) AS e(seq, attempts, term, lease, crc, loss) "
     "WHERE EXISTS(SELECT 1 FROM jobs WHERE jobs.seq = e.seq) "
     "ON CONFLICT(seq) DO UPDATE SET attempts = excluded.attempts, lease_term = excluded.lease_term, "
     "lease = excluded.lease, crc = excluded.crc, losses = CASE "
     "WHEN octet_length(w.losses) + octet_length(excluded.losses) > 5280 THEN w.losses "
     "ELSE w.losses || excluded.losses END"},
    {kProgress,
     "INSERT INTO work(seq, attempts, lease_term, lease, crc, progress_crc, progress) "
     "SELECT e.seq, 0, 0, 0, empty_crc, crc, ids FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[]) "
     "AS e(seq, empty_crc, crc, ids) WHERE EXISTS(SELECT 1 FROM jobs WHERE jobs.seq = e.seq) "
     "ON CONFLICT(seq) DO UPDATE SET progress_crc = excluded.progress_crc, progress = excluded.progress"},
    {kFinish,
     "WITH e AS (SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], "
     "$6::bigint[], $7::bigint[], $8::bytea[], $9::bytea[], $10::bytea[], $11::bytea[], $12::bytea[], $13::bigint[], "
     "$14::bytea[], $15::bigint[], $16::bytea[]) AS t(seq, id, term, lease, state, expires, wall, tenant, grp, model, "
     "key, sha256, crc, result, spec_crc, spec)), "
     "known AS (SELECT e.*, j.spec_crc AS job_spec_crc, j.spec AS job_spec, "
     "e.lease = 0 OR (w.lease_term = e.term AND w.lease = e.lease) AS is_present "
     "FROM e JOIN jobs j ON j.seq = e.seq AND j.id = e.id LEFT JOIN work w ON w.seq = e.seq), "
     "gone AS (DELETE FROM jobs USING known k WHERE jobs.seq = k.seq AND k.is_present), "
     "done AS (DELETE FROM work USING known k WHERE work.seq = k.seq AND k.is_present), "
     "stored AS (INSERT INTO results SELECT seq, id, state, expires, wall, tenant, grp, model, key, sha256, crc, "
     "result, CASE WHEN state = 7 AND spec = '' THEN job_spec_crc ELSE spec_crc END, "
     "CASE WHEN state = 7 AND spec = '' THEN job_spec ELSE spec END FROM known WHERE is_present) "
     "SELECT count(*) FROM known WHERE is_present IS NOT TRUE"},
    {kRequeue,
     "WITH e AS (SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], "
     "$6::bytea[], $7::bigint[], $8::bigint[], $9::bytea[]) AS t(dead, seq, id, at, wall, sha256, crc, spec_crc, "
     "spec)), "
     "gone AS (DELETE FROM results r USING e WHERE r.seq = e.dead AND r.id = e.id AND r.state = 7 RETURNING r.seq) "
     "INSERT INTO jobs(seq, id, accepted_at_ms, accepted_wall_ms, sha256, crc, spec_crc, spec) "
     "SELECT e.seq, id, at, wall, sha256, crc, spec_crc, spec FROM e JOIN gone ON gone.seq = e.dead"},
    {kSetMode,
     "INSERT INTO modes VALUES($1::bigint, $2::bytea, $3::bigint, $4::bigint) "
     "ON CONFLICT(scope, name) DO UPDATE SET mode = excluded.mode, crc = excluded.crc"},
    {kOpenMode, "DELETE FROM modes WHERE scope = $1::bigint AND name = $2::bytea"},
};
static_assert(2 * limits::kAttemptsMax * (limits::kLossReasonBytesMax + 8) == 5280, "the bound in kLease");
static_assert(static_cast<int>(protocol::JobState::kDead) == 7, "the state in kFinish and kRequeue");

std::string_view id_bytes(const JobId& id) { return {reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size()}; }

int64_t lease_sum(int64_t seq, int64_t attempts, const LeaseToken& token) {
  return RowSum()
      .add(seq)
      .add(attempts)
      .add(static_cast<int64_t>(token.term))
      .add(static_cast<int64_t>(token.number))
      .value();
}

// One statement with the rows of many records.
struct Group {
  const char* statement;
  Columns columns;
};

class Batch {
 public:
  explicit Batch(int64_t dead_until_ms) : dead_until_ms_(dead_until_ms) {}

  void add(const Record& record) {
    std::visit([this](const auto& body) { on(body); }, record);
  }
  std::vector<Call> take() {
    std::vector<Call> calls;
    for (Group& group : groups_) calls.push_back({group.statement, {}, group.columns.take()});
    for (Call& mode : modes_) calls.push_back(std::move(mode));
    return calls;
  }

 private:
  // The first group of this kind after all groups that have a record of the job.
  Columns& columns_of(const char* statement, const char* kinds, uint64_t order) {
    return columns_of(statement, kinds, {order, order});
  }
  Columns& columns_of(const char* statement, const char* kinds, std::pair<uint64_t, uint64_t> orders) {
    size_t at = std::max(next_group_[orders.first], next_group_[orders.second]);
    while (at < groups_.size() && groups_[at].statement != statement) ++at;
    if (at == groups_.size()) groups_.push_back({statement, Columns(kinds)});
    next_group_[orders.first] = next_group_[orders.second] = at + 1;
    return groups_[at].columns;
  }

  void on(const Accepted& record) { add_job(columns_of(kAccept, "ibiibiib", record.order), record); }

  static void add_job(Columns& to, const Accepted& record) {
    const std::string encoded = record.encoded_spec.empty() ? protocol::encode_job_spec(record.spec) : std::string();
    const std::string& spec = record.encoded_spec.empty() ? encoded : record.encoded_spec;
    const auto seq = static_cast<int64_t>(record.order);
    const int64_t crc = RowSum()
                            .add(seq)
                            .add(id_bytes(record.job))
                            .add(record.accepted_at_ms)
                            .add(record.accepted_wall_ms)
                            .add(record.payload_sha256)
                            .value();
    to.add(seq).add(id_bytes(record.job)).add(record.accepted_at_ms).add(record.accepted_wall_ms);
    to.add(record.payload_sha256).add(crc).add(RowSum().add(spec).value()).add(spec);
  }

  void on(const Leased& record) {
    const auto seq = static_cast<int64_t>(record.order);
    std::string loss;
    if (record.token.number == 0 && !record.loss.empty()) {
      std::string_view reason(record.loss);
      reason = reason.substr(0, limits::kLossReasonBytesMax);
      reason = reason.substr(0, valid_utf8_prefix(reason));
      const uint32_t head[2] = {static_cast<uint32_t>(reason.size()), crc32c(reason)};
      loss.assign(reinterpret_cast<const char*>(head), sizeof head).append(reason);
    }
    Columns& to = columns_of(kLease, "iiiiib", record.order);
    to.add(seq).add(int64_t{record.attempt}).add(static_cast<int64_t>(record.token.term));
    to.add(static_cast<int64_t>(record.token.number)).add(lease_sum(seq, record.attempt, record.token)).add(loss);
  }

  void on(const Progress& record) {
    const auto seq = static_cast<int64_t>(record.order);
    const std::string_view ids(reinterpret_cast<const char*>(record.ids.data()), record.ids.size() * sizeof(TokenId));
    Columns& to = columns_of(kProgress, "iiib", record.order);
    to.add(seq).add(lease_sum(seq, 0, {})).add(RowSum().add(seq).add(ids).value()).add(ids);
  }

  void on(const Finished& record) {
    const protocol::JobResult& result = record.result;
    const bool is_dead = result.state == protocol::JobState::kDead;
    const std::string spec = is_dead ? record.encoded_spec : "";
    const std::string encoded = protocol::encode_job_result(result);
    const int64_t expires = is_dead ? std::max(record.expires_at_ms, dead_until_ms_) : record.expires_at_ms;
    const auto seq = static_cast<int64_t>(record.order);
    const auto state = static_cast<int64_t>(result.state);
    RowSum sum;
    sum.add(seq).add(id_bytes(result.job)).add(state).add(expires).add(record.accepted_wall_ms).add(record.tenant);
    sum.add(result.group).add(record.model).add(result.key).add(record.payload_sha256).add(encoded);
    Columns& to = columns_of(kFinish, "ibiiiiibbbbbibib", record.order);
    to.add(seq).add(id_bytes(result.job)).add(static_cast<int64_t>(record.token.term));
    to.add(static_cast<int64_t>(record.token.number)).add(state).add(expires).add(record.accepted_wall_ms);
    to.add(record.tenant).add(result.group).add(record.model).add(result.key).add(record.payload_sha256);
    to.add(sum.value()).add(encoded).add(RowSum().add(spec).value()).add(spec);
  }

  // A dead job that was purged meanwhile is not restored.
  void on(const Requeued& record) {
    Columns& to = columns_of(kRequeue, "iibiibiib", {record.dead_order, record.accepted.order});
    to.add(static_cast<int64_t>(record.dead_order));
    add_job(to, record.accepted);
  }

  void on(const ModeSet& record) {
    const auto scope = static_cast<int64_t>(record.scope);
    const auto mode = static_cast<int64_t>(record.mode);
    Values values;
    values.add(scope).add(record.name);
    const bool is_open = record.mode == protocol::QueueMode::kOpen;
    if (!is_open) values.add(mode).add(RowSum().add(scope).add(record.name).add(mode).value());
    modes_.push_back({is_open ? kOpenMode : kSetMode, {}, std::move(values)});
  }

  const int64_t dead_until_ms_;
  std::vector<Group> groups_;
  std::unordered_map<uint64_t, size_t> next_group_;  // by order: the first group after those of its records
  std::vector<Call> modes_;
};

}  // namespace

std::span<const Prepared> batch_statements() { return kStatements; }

std::vector<Call> fenced_calls(const CommitMark& mark, uint64_t next_order, std::vector<Call> calls) {
  Values fence;
  fence.add(static_cast<int64_t>(mark.term)).add(static_cast<int64_t>(mark.number));
  fence.add(static_cast<int64_t>(next_order)).add(mark.time_ms).add(mark.boot).add(mark.uptime_ms);
  std::vector<Call> all;
  all.push_back({"begin", {}, {}});
  all.push_back({kFence, {}, std::move(fence)});
  for (Call& call : calls) all.push_back(std::move(call));
  all.push_back({"commit", {}, {}});
  return all;
}

std::vector<Call> calls_of(std::span<const Record> records, int64_t dead_until_ms) {
  Batch batch(dead_until_ms);
  for (const Record& record : records) batch.add(record);
  return batch.take();
}

std::vector<Call> calls_of(const MergeStep& step, int64_t dead_until_ms) {
  std::vector<Call> calls = calls_of(step.records, dead_until_ms);
  if (!step.adopted.empty()) {
    Columns rows("iiii");
    for (const auto& [order, attempts, crashes] : step.adopted) {
      const auto seq = static_cast<int64_t>(order);
      rows.add(seq).add(int64_t{attempts}).add(int64_t{crashes}).add(lease_sum(seq, attempts, {}));
    }
    calls.push_back({nullptr,
                     "INSERT INTO work(seq, attempts, crashes, lease_term, lease, crc) SELECT seq, attempts, crashes, "
                     "0, 0, crc FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) "
                     "AS e(seq, attempts, crashes, crc) ON CONFLICT(seq) DO UPDATE SET attempts = excluded.attempts, "
                     "crashes = excluded.crashes, lease_term = 0, lease = 0, crc = excluded.crc",
                     rows.take()});
  }
  if (!step.left.empty()) {
    Columns rows("ib");
    for (const auto& [order, job] : step.left) rows.add(static_cast<int64_t>(order)).add(id_bytes(job));
    calls.push_back({nullptr,
                     "WITH e AS (SELECT * FROM unnest($1::bigint[], $2::bytea[]) AS t(seq, id)), "
                     "ended AS (DELETE FROM results USING e WHERE results.seq = e.seq AND results.id = e.id), "
                     "open AS (DELETE FROM jobs USING e WHERE jobs.seq = e.seq AND jobs.id = e.id RETURNING jobs.seq) "
                     "DELETE FROM work USING open WHERE work.seq = open.seq",
                     rows.take()});
  }
  return calls;
}

uint64_t fenced_in(std::span<const Call> calls, std::span<const Rows> answers) {
  uint64_t fenced = 0;
  for (size_t i = 0; i < calls.size(); ++i) {
    if (calls[i].prepared == kFinish) fenced += static_cast<uint64_t>(answers[i].number(0, 0));
  }
  return fenced;
}

uint64_t next_order_after(std::span<const Record> records) {
  uint64_t next = 1;
  for (const Record& record : records) {
    if (const auto* accepted = std::get_if<Accepted>(&record)) next = std::max(next, accepted->order + 1);
    if (const auto* requeued = std::get_if<Requeued>(&record)) next = std::max(next, requeued->accepted.order + 1);
  }
  return next;
}

}  // namespace optserve::journal
