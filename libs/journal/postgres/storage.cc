// The journal in a schema of PostgreSQL.
#include <algorithm>
#include <limits>
#include <utility>

#include "base/log.h"
#include "journal/journal_storage.h"
#include "journal/postgres/batch.h"
#include "journal/postgres/reading.h"
#include "journal/postgres/row_sum.h"
#include "journal/postgres/session.h"
#include "protocol/codec.h"

namespace optserve::journal {
namespace {

// Conditions on rows of `results`, with parameters from $3 on.
struct RowConditions {
  explicit RowConditions(const protocol::JobFilter& filter) {
    const std::string state = std::to_string(filter.state ? static_cast<int>(*filter.state) : 0);
    // Uses the index that leaves the fewest rows; without one, rows are read in their order.
    if (filter.job) {
      index = "id = $3::bytea";
    } else if (filter.tenant && !filter.group.empty()) {
      index = "tenant = $4::bytea AND grp = $6::bytea AND grp <> ''";
    } else if (filter.state) {
      index = "state = " + state;
    }
    if (filter.job) rest += " AND id = $3::bytea";
    if (filter.state) rest += " AND state = " + state;
    if (filter.tenant) rest += " AND tenant = $4::bytea";
    if (!filter.model.empty()) rest += " AND model = $5::bytea";
    if (!filter.group.empty()) rest += " AND grp = $6::bytea";
    for (const char* parameter :
         {"$3", "$4", "$5", "$6"}) {  // parameters that a filter does not use need a type as well
      rest += std::string(" AND ") + parameter + "::bytea IS NOT NULL";
    }
  }
  std::string index = "true", rest = "true";
};

class PostgresStorage final : public JournalStorage {
 public:
  PostgresStorage(const JournalOptions& options, const Clock& clock, Recovery& recovery)
      : options_(options), clock_(clock), session_(options, clock) {
    recover(recovery);
  }

  bool commit(std::span<const Record> records) override {
    return transact(calls_of(records, now_ms() + options_.dead_ttl.count()), next_order_after(records), nullptr);
  }
  bool merge(const MergeStep& step) override {
    return transact(calls_of(step, now_ms() + options_.dead_ttl.count()), next_order_after(step.records), nullptr);
  }
  uint64_t fenced() const override { return fenced_; }

  ResultFound find_result(const JobId& job) override {
    const Rows rows = find(job);
    if (rows.size() == 0) return {job, std::nullopt};
    return {job, checked_result(job, is_whole_result(rows, 0, 0), rows.bytes(0, 11))};
  }

  DeadFound find_dead(const JobId& job) override {
    const Rows rows = find(job);
    if (rows.size() == 0) return {};
    checked_result(job, is_whole_result(rows, 0, 0), rows.bytes(0, 11));
    DeadFound found;
    found.order = static_cast<uint64_t>(rows.number(0, 0));
    Accepted accepted;
    accepted.job = job;
    accepted.order = found.order;
    accepted.accepted_wall_ms = rows.number(0, 4);
    accepted.payload_sha256 = rows.text(0, 9);
    accepted.encoded_spec = rows.text(0, 13);
    if (rows.number(0, 2) != static_cast<int64_t>(protocol::JobState::kDead) || accepted.encoded_spec.empty()) {
      return {};
    }
    auto spec = protocol::decode_job_spec(accepted.encoded_spec);
    if (!spec.ok() || RowSum().add(accepted.encoded_spec).value() != rows.number(0, 12)) {
      throw DamagedError("the stored request of job " + job.hex() + " does not match its checksum");
    }
    accepted.spec = std::move(spec).value();
    found.job = std::move(accepted);
    return found;
  }

  EndedPart<protocol::JobSummary> list_ended(const ListEnded& question, uint32_t window) override {
    const Rows rows = look(question.filter, question.after, window, question.newest_first);
    EndedPart<protocol::JobSummary> part = part_of<protocol::JobSummary>(rows, window);
    for (int row = 0; row < rows.size(); ++row) {
      if (rows.number(row, 12) == 0 || rows.number(row, 3) <= now_ms()) continue;
      Finished ended;
      ended.order = static_cast<uint64_t>(rows.number(row, 0));
      ended.accepted_wall_ms = rows.number(row, 4);
      ended.tenant = rows.text(row, 5);
      ended.model = rows.text(row, 7);
      ended.result =
          checked_result(id_from_row(rows.bytes(row, 1)), is_whole_result(rows, row, 0), rows.bytes(row, 11));
      part.items.push_back(summary_of(ended));
    }
    return part;
  }

  std::optional<EndedPart<KnownKey>> purge_ended(const protocol::JobFilter& filter, uint64_t after,
                                                 uint32_t window) override {
    const Rows rows = look(filter, after, window, false);
    EndedPart<KnownKey> part = part_of<KnownKey>(rows, window);
    Columns orders("i");
    for (int row = 0; row < rows.size(); ++row) {
      if (rows.number(row, 12) == 0) continue;
      orders.add(rows.number(row, 0));
      part.items.push_back({rows.text(row, 5), rows.text(row, 8), rows.text(row, 9), id_from_row(rows.bytes(row, 1)),
                            rows.number(row, 3), rows.text(row, 6),
                            static_cast<protocol::JobState>(rows.number(row, 2))});
    }
    if (part.items.empty()) return part;
    std::vector<Call> calls;
    calls.push_back({nullptr, "DELETE FROM results WHERE seq = ANY($1::bigint[])", orders.take()});
    if (!transact(std::move(calls), 1, nullptr)) return std::nullopt;
    return part;
  }

  int64_t purge_expired(int64_t limit) override {
    Values now;
    now.add(now_ms());
    const Rows any = ask("SELECT 1::bigint FROM results WHERE expires_at_ms <= $1::bigint LIMIT 1", now);
    if (any.size() == 0) return 0;
    now.add(limit);
    std::vector<Call> calls;
    calls.push_back({nullptr,
                     "DELETE FROM results WHERE seq = ANY(ARRAY(SELECT seq FROM results WHERE expires_at_ms <= "
                     "$1::bigint ORDER BY expires_at_ms LIMIT $2::bigint))",
                     std::move(now)});
    int64_t removed = 0;
    transact(std::move(calls), 1, &removed);
    return removed;
  }

  void back_up(uint64_t request) override { asked_.push_back(request); }

  void after_commit() override {}
  void rest() override {}
  void keep_up(std::vector<Answer>& answers) override {
    for (const uint64_t request : std::exchange(asked_, {})) {
      answers.push_back(
          {request, refuse(ErrorCode::kUnavailable, "the journal is in PostgreSQL: back it up with pg_dump --schema=" +
                                                        options_.queue + ", or as the whole server is backed up")});
    }
    persist([&] { session_.beat(); });
  }
  void close() override { session_.leave(); }
  bool needs_turns() const override { return false; }
  bool expects_turns() const override { return false; }

  bool is_full() const override { return full_.load(std::memory_order_relaxed); }
  bool is_reachable() const override { return session_.is_reachable(); }
  // Watching its files and its disk is up to the server.
  JournalState state() const override { return {.is_full = is_full()}; }
  bool is_asked_to_hand_over() const override { return session_.is_asked_to_hand_over(); }
  const LastingTime& time() const override { return session_.time(); }

 private:
  int64_t now_ms() const { return session_.time().ms(clock_.now()); }

  void recover(Recovery& recovery) {
    session_.connection().set_patience(Duration::zero());
    recovery.term = session_.term();
    recovery.next_order = session_.next_order();
    std::vector<OpenRow> leased;
    read_open_jobs(session_.connection(), [&](OpenRow row) {
      recovery.next_order = std::max(recovery.next_order, row.job.accepted.order + 1);
      if (row.lease.number > 0) {
        OpenRow small;
        small.job.accepted.order = row.job.accepted.order;
        small.job.attempts = row.job.attempts;
        small.lease = row.lease;
        leased.push_back(std::move(small));
        // That attempt was cut short by the scheduler and not by a worker, so it does not count.
        row.job.attempts = std::max(row.job.attempts - 1, 0);
        if (session_.was_sudden()) ++row.job.crashes;
      }
      recovery.open.push_back(std::move(row.job));
    });
    read_ended(session_.connection(), [&](KnownKey key, uint64_t order) {
      recovery.next_order = std::max(recovery.next_order, order + 1);
      if (key.expires_at_ms > now_ms()) recovery.keys.push_back(std::move(key));
    });
    recovery.modes = read_modes(session_.connection());
    session_.connection().set_patience(options_.outage_max);
    if (!leased.empty()) {
      const bool done = transact(calls_to_end_leases(leased, session_.was_sudden()), recovery.next_order, nullptr);
      if (!done) throw Error("journal '" + options_.queue + "': the disk of the database is full");
    }
  }

  // Repeats the action over a new connection as long as only the connection fails.
  void persist(const std::function<void()>& action) {
    for (;;) {
      try {
        action();
        return;
      } catch (const PostgresError& error) {
        if (error.is_full()) return;
        if (!error.is_broken()) throw;
      }
      session_.resume();
    }
  }

  Rows ask(const std::string& sql, const Values& values) {
    std::optional<Rows> rows;
    persist([&] { rows.emplace(session_.connection().query(sql, values)); });
    if (!rows) throw Error("journal '" + options_.queue + "': the disk of the database is full");
    return std::move(*rows);
  }

  // Executes one transaction under our term exactly once, even if the connection breaks. False if the server's disk is
  // full; then nothing is changed. `changed` gets the number of rows that the last of the calls changed, or 0 if the
  // answer was lost.
  bool transact(std::vector<Call> inner, uint64_t next_order, int64_t* changed) {
    const LastingTime::Mark mark = session_.time().mark(clock_.now());
    const std::vector<Call> calls =
        fenced_calls({session_.term(), session_.commits() + 1, mark.time_ms, mark.boot, mark.uptime_ms}, next_order,
                     std::move(inner));
    for (;;) {
      try {
        const std::vector<Rows> answers = session_.connection().run(calls);
        check(answers.back().tag() == "COMMIT", "a transaction that did not fail was not committed");
        session_.count_commit();
        fenced_ += fenced_in(calls, answers);
        if (changed != nullptr) *changed = answers[answers.size() - 2].changes();
        if (full_.exchange(false)) log_info("journal_disk_has_room", {{"queue", options_.queue}});
        return true;
      } catch (const PostgresError& error) {
        if (error.state() == kFenceState) session_.fail_fenced();
        if (error.is_full()) {
          if (!full_.exchange(true)) {
            log_error("journal_disk_full", {{"queue", options_.queue}, {"error", error.what()}});
          }
          return false;
        }
        if (error.is_passing()) continue;
        if (!error.is_broken()) throw;
      }
      // The connection broke before an answer, so ask the database whether this transaction took effect.
      if (session_.resume()) {
        session_.count_commit();
        return true;
      }
    }
  }

  Rows find(const JobId& job) {
    Values values;
    values.add(std::string_view(reinterpret_cast<const char*>(job.bytes.data()), job.bytes.size())).add(now_ms());
    return ask(std::string("SELECT ") + kResultColumns +
                   ", spec_crc, spec FROM results WHERE id = $1::bytea AND expires_at_ms > $2::bigint "
                   "ORDER BY seq DESC LIMIT 1",
               values);
  }

  // The next rows of the filter's index. Column 12 says whether a row matches, and only matching rows have their large
  // values.
  Rows look(const protocol::JobFilter& filter, uint64_t after, uint32_t window, bool newest_first) {
    const RowConditions conditions(filter);
    if (newest_first && after == 0) after = std::numeric_limits<int64_t>::max();
    const std::string order = newest_first ? "DESC" : "ASC";
    Values values;
    values.add(static_cast<int64_t>(after)).add(int64_t{window});
    values.add(filter.job
                   ? std::string_view(reinterpret_cast<const char*>(filter.job->bytes.data()), filter.job->bytes.size())
                   : std::string_view());
    values.add(filter.tenant.value_or("")).add(filter.model).add(filter.group);
    return ask(
        "SELECT seq, id, state, expires_at_ms, accepted_wall_ms, tenant, grp, model, key, sha256, crc, "
        "CASE WHEN " +
            conditions.rest + " THEN result END, " + conditions.rest + " FROM (SELECT * FROM results WHERE seq " +
            (newest_first ? "<" : ">") + " $1::bigint AND " + conditions.index + " ORDER BY seq " + order +
            " LIMIT $2::bigint) AS found ORDER BY seq " + order,
        values);
  }

  template <class Item>
  static EndedPart<Item> part_of(const Rows& rows, uint32_t window) {
    EndedPart<Item> part;
    if (rows.size() > 0) part.last = static_cast<uint64_t>(rows.number(rows.size() - 1, 0));
    part.is_last = rows.size() < static_cast<int>(window);
    return part;
  }

  const JournalOptions options_;
  const Clock& clock_;
  Session session_;
  uint64_t fenced_ = 0;
  std::vector<uint64_t> asked_;  // questions for a backup
  std::atomic<bool> full_{false};
};

}  // namespace

std::unique_ptr<JournalStorage> open_postgres_storage(const JournalOptions& options, const Clock& clock,
                                                      Recovery& recovery) {
  return std::make_unique<PostgresStorage>(options, clock, recovery);
}

}  // namespace optserve::journal
