#include "journal/journal_database.h"

#include <algorithm>
#include <array>

#include "journal/journal_schema.h"
#include "journal/journal_statements.h"
#include "protocol/codec.h"

namespace optserve::journal {
namespace {

[[noreturn]] void fail_damaged(const std::string& what) {
  throw DamagedError("journal: " + what +
                     " does not match its checksum: the file is damaged; move it away and restore the latest backup");
}

// Reasons of losses are stored with their lengths in front.
std::vector<std::string> split_reasons(std::string_view bytes) {
  std::vector<std::string> reasons;
  while (bytes.size() >= sizeof(uint32_t)) {
    uint32_t size;
    std::memcpy(&size, bytes.data(), sizeof size);
    bytes.remove_prefix(sizeof size);
    reasons.emplace_back(bytes.substr(0, size));
    bytes.remove_prefix(std::min<size_t>(size, bytes.size()));
  }
  return reasons;
}

}  // namespace

JournalDatabase::JournalDatabase(const JournalOptions& options, Instant now, Recovery& recovery)
    : lock_(lock_journal(options.path + ".lock")),
      commit_record_((prepare_journal_file(options.path), options.path)),
      database_((check_wal(options.path, commit_record_.read()), options.path)),
      limit_pages_(options.database_bytes_max / kPageBytes),
      reserve_pages_(options.reserve_bytes / kPageBytes),
      dead_ttl_ms_(options.dead_ttl.count()),
      now_(now) {
  open(options);
  read_meta(options);
  check_commits(commit_record_.read());
  recover(recovery);
  commit_record_.sync();
}

JournalDatabase::~JournalDatabase() = default;

void JournalDatabase::open(const JournalOptions& options) {
  configure_connection(database_);
  const int64_t version = schema_version(database_);
  configure(options);
  check_integrity(database_);
  if (version == 0) create_schema(database_);
  if (version == 1 || version == 2) migrate(database_, version);
  check_schema(database_);
  lift_limit(false);
}

void JournalDatabase::configure(const JournalOptions& options) {
  if (const std::string mode = database_.query_text("PRAGMA journal_mode = WAL"); mode != "wal") {
    throw Error("journal " + options.path + ": no write-ahead log on this file system (journal mode '" + mode +
                "'): use a local disk");
  }
  database_.execute(
      "PRAGMA synchronous = FULL;"
      "PRAGMA wal_autocheckpoint = 0;"  // checkpoints are made explicitly
      "PRAGMA cache_size = -65536;"
      // A log that has grown returns its space when it starts again.
      "PRAGMA journal_size_limit = 4194304");
  const auto count_pages = [](void* pages, sqlite3*, const char*, int in_wal) {
    *static_cast<int64_t*>(pages) = in_wal;
    return SQLITE_OK;
  };
  sqlite3_wal_hook(database_.handle(), count_pages, &wal_pages_);
}

void JournalDatabase::read_meta(const JournalOptions& options) {
  Statement meta(database_, std::string("SELECT id, term, next_seq, commits, time_ms, boot, uptime_ms, crc = ") +
                                kMetaCrc + " FROM meta");
  if (!meta.step() || meta.column_number(7) != 1) fail_damaged("its row of terms");
  id_ = meta.column_text(0);
  term_ = std::max(static_cast<uint64_t>(meta.column_number(1)), options.term_above) + 1;
  next_seq_ = meta.column_number(2);
  commits_ = commits_found_ = static_cast<uint64_t>(meta.column_number(3));
  time_.emplace(LastingTime::Mark{meta.column_number(4), meta.column_text(5), meta.column_number(6)}, options.boot,
                now_);
}

void JournalDatabase::check_commits(const std::optional<CommitRecord::Content>& known) const {
  if (!known || known->journal != id_ || known->commits <= commits_) return;
  throw DamagedError("journal " + database_.path() + ": " + std::to_string(known->commits - commits_) +
                     " commits that were on disk are missing: its write-ahead log is damaged or gone, or an older copy "
                     "was put in its place. Restore the latest backup; to go on with what is left, remove " +
                     CommitRecord::path_of(database_.path()));
}

// Everything is read and checked before the first write, so that no damaged row gets a valid checksum.
void JournalDatabase::recover(Recovery& recovery) {
  recover_open_jobs(recovery);
  recover_ended(recovery);
  recover_modes(recovery);
  recovery.term = term_;
  recovery.next_order = static_cast<uint64_t>(next_seq_);
  statements_ = std::make_unique<Statements>(database_);
  const LastingTime::Mark mark = time_->mark(now_);
  database_.execute("BEGIN IMMEDIATE");
  Statement start(database_,
                  "UPDATE meta SET term = ?4, commits = commits + 1, time_ms = ?1, boot = ?2, uptime_ms = ?3, "
                  "crc = row_crc(id, ?4, next_seq, commits + 1, ?1, ?2, ?3)");
  start.bind(1, mark.time_ms).bind_text(2, mark.boot).bind(3, mark.uptime_ms);
  start.bind(4, static_cast<int64_t>(term_)).run();
  database_.execute(
      "UPDATE jobs SET crashes = crashes + 1, attempts = max(attempts - 1, 0), lease = 0, "
      "lease_crc = row_crc(seq, max(attempts - 1, 0), crashes + 1, lease_term, 0) WHERE lease > 0; COMMIT;");
  ++commits_;
  write_commit_record();
}

void JournalDatabase::recover_open_jobs(Recovery& recovery) {
  recovery.open.reserve(static_cast<size_t>(database_.query_number("SELECT count(*) FROM jobs")));
  Statement rows(database_,
                 std::string("SELECT jobs.seq, id, accepted_wall_ms, sha256, attempts, crashes, lease, spec, ids, "
                             "reasons, accepted_at_ms, jobs.crc = ") +
                     kJobCrc + ", lease_crc = " + kLeaseCrc +
                     ", progress.crc IS NULL OR progress.crc = row_crc(jobs.seq, ids), "
                     "losses.crc IS NULL OR losses.crc = row_crc(jobs.seq, reasons) "
                     "FROM jobs LEFT JOIN progress USING(seq) LEFT JOIN losses USING(seq) ORDER BY jobs.seq");
  while (rows.step()) {
    OpenJob job;
    job.accepted.order = static_cast<uint64_t>(rows.column_number(0));
    job.accepted.job = id_from(rows.column_bytes(1));
    static constexpr std::array kParts = {"request", "lease", "progress", "losses"};
    for (size_t i = 0; i < kParts.size(); ++i) {
      if (rows.column_number(11 + static_cast<int>(i)) == 1) continue;
      fail_damaged(std::string("the stored ") + kParts[i] + " of job " + job.accepted.job.hex());
    }
    job.accepted.accepted_at_ms = rows.column_number(10);
    job.accepted.accepted_wall_ms = rows.column_number(2);
    job.accepted.payload_sha256 = rows.column_bytes(3);
    job.attempts = static_cast<int32_t>(rows.column_number(4));
    job.crashes = static_cast<int32_t>(rows.column_number(5));
    if (rows.column_number(6) > 0) {
      // The job was leased when the last scheduler ended. That attempt was cut short by the scheduler and not by a
      // worker, so it does not count.
      ++job.crashes;
      job.attempts = std::max(job.attempts - 1, 0);
    }
    auto decoded = protocol::decode_job_spec(rows.column_bytes(7));
    if (!decoded.ok()) {
      throw Error("journal: request of job " + job.accepted.job.hex() + ": " + decoded.refusal().message);
    }
    job.accepted.spec = std::move(decoded).value();
    const std::string_view ids = rows.column_bytes(8);
    job.progress.resize(ids.size() / sizeof(TokenId));
    if (!ids.empty()) std::memcpy(job.progress.data(), ids.data(), job.progress.size() * sizeof(TokenId));
    job.losses = split_reasons(rows.column_bytes(9));
    next_seq_ = std::max(next_seq_, static_cast<int64_t>(job.accepted.order) + 1);
    recovery.open.push_back(std::move(job));
  }
}

void JournalDatabase::recover_ended(Recovery& recovery) {
  Statement rows(database_, std::string("SELECT crc = ") + kResultCrc +
                                ", tenant, key, sha256, id, expires_at_ms, grp, state, seq FROM results ORDER BY seq");
  while (rows.step()) {
    const JobId job = id_from(rows.column_bytes(4));
    if (rows.column_number(0) != 1) fail_damaged("the stored result of job " + job.hex());
    next_seq_ = std::max(next_seq_, rows.column_number(8) + 1);
    if (rows.column_number(5) <= time_->ms(now_)) continue;
    recovery.keys.push_back({rows.column_text(1), rows.column_text(2), rows.column_text(3), job, rows.column_number(5),
                             rows.column_text(6), static_cast<protocol::JobState>(rows.column_number(7))});
  }
}

void JournalDatabase::recover_modes(Recovery& recovery) {
  Statement rows(database_, "SELECT crc = row_crc(scope, name, mode), scope, name, mode FROM modes");
  while (rows.step()) {
    if (rows.column_number(0) != 1) fail_damaged("the stored mode of '" + rows.column_text(2) + "'");
    recovery.modes.push_back({static_cast<protocol::ControlScope>(rows.column_number(1)), rows.column_text(2),
                              static_cast<protocol::QueueMode>(rows.column_number(3))});
  }
}

void JournalDatabase::write_commit_record() {
  if (wal_pages_ < wal_pages_seen_ || wal_salt_.empty()) {  // the log started again
    sqlite3_file* wal = nullptr;
    char header[32] = {};
    sqlite3_file_control(database_.handle(), "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
    if (wal != nullptr && wal->pMethods != nullptr) {
      const int code = wal->pMethods->xRead(wal, header, sizeof header, 0);
      if (code != SQLITE_OK) database_.fail("read the log's header", code);
    }
    wal_salt_.assign(header + 16, 8);
  }
  wal_pages_seen_ = wal_pages_;
  commit_record_.write({id_, commits_, wal_salt_, static_cast<uint64_t>(wal_pages_)});
}

JournalPosition JournalDatabase::position() const {
  return {id_, term_, commits_, wal_salt_, static_cast<uint64_t>(wal_pages_)};
}

void JournalDatabase::checkpoint(Checkpoint how) {
  int in_wal = 0;
  int moved = 0;
  const int mode = how == Checkpoint::kTruncate ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE;
  const int code = sqlite3_wal_checkpoint_v2(database_.handle(), nullptr, mode, &in_wal, &moved);
  if ((code & 0xff) == SQLITE_FULL) return;
  if (code != SQLITE_OK) database_.fail("checkpoint", code);
  if (in_wal == moved) {
    wal_pages_ = 0;  // the next commit starts the log again
    wal_pages_seen_ = 0;
    wal_salt_.clear();
  }
  commit_record_.sync();
}

void JournalDatabase::lift_limit(bool lift) {
  if (limit_pages_ == 0) return;
  database_.execute("PRAGMA max_page_count = " + std::to_string(limit_pages_ + (lift ? reserve_pages_ : 0)));
}

bool JournalDatabase::has_room() {
  if (limit_pages_ == 0) return true;
  const int64_t used = database_.query_number("PRAGMA page_count") - database_.query_number("PRAGMA freelist_count");
  return limit_pages_ - used >= std::min(2 * reserve_pages_, limit_pages_ / 4);
}

}  // namespace optserve::journal
