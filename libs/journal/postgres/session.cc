#include "journal/postgres/session.h"

#include <thread>
#include <utility>

#include "base/log.h"
#include "base/program.h"
#include "journal/journal_storage.h"
#include "journal/postgres/batch.h"
#include "journal/postgres/schema.h"

namespace optserve::journal {
namespace {

constexpr milliseconds kBeat{500};           // between signs of life of a leader
constexpr milliseconds kSilentAfter{2'500};  // a leader without one is paused or cut off
constexpr milliseconds kLook{100};           // between checks by a standby
constexpr milliseconds kGrace{500};          // for a leader to come back after its session broke
constexpr milliseconds kConnect{2'000};
// A step above every term that may have been used by starts that the database does not know.
constexpr uint64_t kTermsUnknown = 1'000'000;

constexpr const char* kLockKey = "hashtextextended('optserve ' || 'meta'::regclass::oid || ' ' || current_schema(), 0)";

}  // namespace

// What a standby has seen.
struct Session::Watch {
  std::optional<Leader> last{};
  Instant moved{};                      // when the leader last showed life
  std::optional<Instant> free_since{};  // when the lock was first found free
};

Session::Session(const JournalOptions& options, const Clock& clock) : options_(options), clock_(clock) {
  quoted_queue(options.queue);
  Watch watch;
  for (;;) {
    std::string why;
    try {
      if (connection_ || connect(why)) {
        if (try_to_lead(watch, why)) break;
      } else {
        watch = {};
      }
    } catch (const PostgresError& error) {
      if (!error.is_broken()) throw;
      why = error.what();
      connection_.reset();
      watch = {};
    }
    if (!options_.stand_by || !options_.stand_by(why)) throw Error("journal: " + why);
    std::this_thread::sleep_for(kLook);
  }
  connection_->prepare(batch_statements());
}

Session::~Session() = default;

bool Session::connect(std::string& why) {
  try {
    connection_ = std::make_unique<Connection>(options_.path, options_.queue, kConnect);
    check_schema_version(*connection_, options_.queue);
    return true;
  } catch (const PostgresError& error) {
    connection_.reset();
    // Waiting does not mend a wrong password or database, but with stand_by it goes on, since somebody may be mending
    // it.
    if (!error.is_broken() && !options_.stand_by) throw;
    why = error.what();
    return false;
  }
}

bool Session::take_lock() {
  return connection_->query(std::string("SELECT pg_try_advisory_lock(") + kLockKey + ")").number(0, 0) != 0;
}

void Session::release_lock() { connection_->query(std::string("SELECT pg_advisory_unlock(") + kLockKey + ")"); }

Session::Leader Session::read_leader() {
  // The holder of the lock is the session to end, whatever the leader's row says about it.
  const Rows rows = connection_->query(
      std::string("SELECT m.term, m.commits, l.beat, l.pid, l.server, l.holder, coalesce(a.pid, 0), "
                  "coalesce(a.backend_start::text, ''), "
                  "coalesce(a.state = 'active' AND a.wait_event_type IS DISTINCT FROM 'Client', false) "
                  "FROM meta m CROSS JOIN leader l LEFT JOIN (pg_locks k JOIN pg_stat_activity a ON a.pid = k.pid AND "
                  "a.datname = current_database() AND k.locktype = 'advisory' AND k.granted AND k.objsubid = 1) "
                  "ON (k.classid::bigint << 32 | k.objid::bigint) = ") +
      kLockKey + " LIMIT 1");
  if (rows.size() != 1) throw DamagedError("the journal '" + options_.queue + "' has lost its row of terms");
  Leader leader;
  leader.term = static_cast<uint64_t>(rows.number(0, 0));
  leader.commits = static_cast<uint64_t>(rows.number(0, 1));
  leader.beat = rows.number(0, 2);
  leader.pid = rows.number(0, 3);
  leader.server = rows.text(0, 4);
  leader.holder = rows.text(0, 5);
  leader.session = {rows.number(0, 6), rows.text(0, 7)};
  leader.is_busy = rows.number(0, 8) != 0;
  return leader;
}

bool Session::try_to_lead(Watch& watch, std::string& why) {
  const Leader leader = read_leader();
  const Instant now = system_.now();
  if (!watch.last || !watch.last->is_same_moment(leader)) watch.moved = now;
  if (watch.last && watch.last->term != leader.term) has_paused_ = false;  // that was a different leader
  watch.last = leader;
  if (leader.term > seen_term_ || (leader.term == seen_term_ && leader.commits > seen_commits_)) {
    seen_term_ = leader.term;
    seen_commits_ = leader.commits;
  }
  why = "another scheduler" + (leader.holder.empty() ? "" : " (" + leader.holder + ")") + " leads the queue '" +
        options_.queue + "' with term " + std::to_string(leader.term);
  if (!take_lock()) {
    watch.free_since.reset();
    // If the server is slow to write, the leader is silent too; ending its session would not help.
    if (now - watch.moved < kSilentAfter || leader.is_busy || leader.session.pid == 0) return false;
    log_warn("leader_silent", {{"queue", options_.queue}, {"holder", leader.holder}, {"term", leader.term}});
    has_paused_ = true;
    end_session(leader.session);
    watch.moved = now;
    return false;
  }
  // A leader whose connection broke for a moment comes back sooner than its jobs could start elsewhere.
  const bool is_waited_for = leader.pid != 0 && !has_paused_ && options_.stand_by;
  if (!watch.free_since) watch.free_since = now;
  if (is_waited_for && now - *watch.free_since < kGrace) {
    release_lock();
    why = "the leader's session ended; it has a moment to come back";
    return false;
  }
  raise_term(leader);
  return true;
}

void Session::end_session(const Backend& session) {
  Values values;
  values.add(session.pid).add(session.started);
  connection_->query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1::bigint AND backend_start::text = "
      "convert_from($2::bytea, 'UTF8')",
      std::move(values));
}

void Session::raise_term(const Leader& before) {
  const Rows meta = connection_->query(
      "SELECT time_ms, boot, uptime_ms, next_seq, origin, pg_postmaster_start_time()::text, commits FROM meta");
  time_.emplace(LastingTime::Mark{meta.number(0, 0), meta.text(0, 1), meta.number(0, 2)}, options_.boot, clock_.now());
  next_order_ = static_cast<uint64_t>(meta.number(0, 3));
  commits_ = static_cast<uint64_t>(meta.number(0, 6)) + 1;
  const std::string origin = origin_of(*connection_);
  const bool has_moved = !meta.text(0, 4).empty() && meta.text(0, 4) != origin;
  const bool has_lost = before.term < seen_term_ || (before.term == seen_term_ && before.commits < seen_commits_);
  term_ = std::max(before.term, options_.term_above) + 1;
  if (has_moved || has_lost) term_ = std::max(term_, seen_term_) + kTermsUnknown;
  if (has_moved) {
    log_warn("journal_moved", {{"queue", options_.queue},
                               {"from", meta.text(0, 4)},
                               {"to", origin},
                               {"meaning",
                                "a promoted replica, a restored backup or a rewritten table: what was "
                                "committed last may be missing"}});
  }
  if (has_lost) {
    log_error("journal_lost_commits", {{"queue", options_.queue},
                                       {"seen_term", seen_term_},
                                       {"seen_commit", seen_commits_},
                                       {"term", before.term},
                                       {"commit", before.commits},
                                       {"meaning", "the database went back: jobs accepted in between are unknown"}});
  }
  const bool server_restarted = !before.server.empty() && before.server != meta.text(0, 5);
  was_sudden_ = !has_paused_ && !server_restarted && !has_moved;
  const LastingTime::Mark mark = time_->mark(clock_.now());
  Values values;
  values.add(static_cast<int64_t>(before.term)).add(static_cast<int64_t>(term_)).add(origin);
  values.add(mark.time_ms).add(mark.boot).add(mark.uptime_ms);
  Rows raised = connection_->query(
      "UPDATE meta SET term = $2::bigint, commits = commits + 1, origin = convert_from($3::bytea, 'UTF8'), "
      "time_ms = $4::bigint, boot = $5::bytea, uptime_ms = $6::bigint WHERE term = $1::bigint",
      std::move(values));
  if (raised.changes() != 1) throw PostgresError("another scheduler took over at the same moment", "");
  note_session();
}

// Writes this session into the leader's row.
void Session::note_session() {
  Values values;
  values.add(static_cast<int64_t>(term_)).add(options_.holder);
  const Rows noted = connection_->query(
      "UPDATE leader SET term = $1::bigint, beat = beat + 1, pid = pg_backend_pid(), hand_over = 0, "
      "server = pg_postmaster_start_time()::text, holder = $2::bytea "
      "RETURNING pid, (SELECT backend_start::text FROM pg_stat_activity a WHERE a.pid = pg_backend_pid())",
      std::move(values));
  session_ = {noted.number(0, 0), noted.text(0, 1)};
  connection_->set_patience(options_.outage_max);
  next_beat_ = system_.now() + kBeat;
}

bool Session::resume() {
  const Instant begin = system_.now();
  const Instant end = begin + options_.outage_max;
  log_warn("journal_unreachable", {{"queue", options_.queue}, {"term", term_}});
  is_reachable_ = false;
  std::string why = "the database does not answer";
  for (connection_.reset(); system_.now() < end; std::this_thread::sleep_for(milliseconds(20))) {
    try {
      if (!connection_ && !connect(why)) continue;
      end_session(session_);
      // The lock becomes free once the server has finished or undone everything that the old session did.
      if (!take_lock()) {
        if (read_leader().term != term_) fail_fenced();
        why = "the server has not ended the old session";
        continue;
      }
      const bool is_there = look();
      connection_->prepare(batch_statements());
      note_session();
      is_reachable_ = true;
      log_info("journal_reachable", {{"queue", options_.queue},
                                     {"term", term_},
                                     {"after_ms", std::chrono::ceil<milliseconds>(system_.now() - begin).count()}});
      return is_there;
    } catch (const PostgresError& error) {
      if (!error.is_broken()) throw;
      why = error.what();
      connection_.reset();
    }
  }
  throw Error("journal '" + options_.queue + "': no database for " + std::to_string(options_.outage_max.count()) +
              " ms (" + why + "): this scheduler gives way to another");
}

// Reads what the database knows about this term's commits.
bool Session::look() {
  const Rows meta = connection_->query("SELECT term, commits, origin FROM meta");
  if (static_cast<uint64_t>(meta.number(0, 0)) > term_) fail_fenced();
  const auto there = static_cast<uint64_t>(meta.number(0, 1));
  if (static_cast<uint64_t>(meta.number(0, 0)) < term_ || there < commits_) {
    throw Error("journal '" + options_.queue + "': the database at " + connection_->place() + " has commit " +
                std::to_string(there) + " of term " + std::to_string(meta.number(0, 0)) + ", but commit " +
                std::to_string(commits_) + " of term " + std::to_string(term_) +
                " was on disk: a replica was promoted that had not received it, or a backup was restored. Jobs "
                "accepted in between are lost; the next start goes on with what is there");
  }
  check(there <= commits_ + 1, "the database has commits of this term that nobody made");
  const std::string origin = origin_of(*connection_);
  if (origin != meta.text(0, 2)) {
    log_warn("journal_moved", {{"queue", options_.queue}, {"from", meta.text(0, 2)}, {"to", origin}});
    Values values;
    values.add(origin);
    connection_->query("UPDATE meta SET origin = convert_from($1::bytea, 'UTF8')", std::move(values));
  }
  return there == commits_ + 1;
}

void Session::beat() {
  const Instant now = system_.now();
  if (now < next_beat_) return;
  Values values;
  values.add(static_cast<int64_t>(term_));
  std::vector<Call> calls;
  calls.push_back({nullptr, "BEGIN", {}});
  calls.push_back({nullptr, "SELECT set_config('synchronous_commit', 'off', true)", {}});
  calls.push_back(
      {nullptr, "UPDATE leader SET beat = beat + 1 WHERE term = $1::bigint RETURNING hand_over", std::move(values)});
  calls.push_back({nullptr, "COMMIT", {}});
  const std::vector<Rows> answers = connection_->run(calls);
  if (answers[2].size() != 1) fail_fenced();
  if (static_cast<uint64_t>(answers[2].number(0, 0)) == term_) hand_over_ = true;
  next_beat_ = now + kBeat;
}

void Session::fail_fenced() {
  const uint64_t there = static_cast<uint64_t>(connection_->query("SELECT term FROM meta").number(0, 0));
  throw Error("journal '" + options_.queue + "': another scheduler took over this journal (our term is " +
              std::to_string(term_) + ", the database has " + std::to_string(there) + "): this one stops");
}

void Session::leave() {
  Values values;
  values.add(static_cast<int64_t>(term_));
  connection_->query("UPDATE leader SET pid = 0 WHERE term = $1::bigint", std::move(values));
  connection_.reset();
}

}  // namespace optserve::journal
