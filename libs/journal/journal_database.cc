#include "journal/journal_database.h"

#include <algorithm>
#include <cstring>

#include "journal/crc32c.h"
#include "protocol/codec.h"

namespace optserve::journal {
namespace {

constexpr int64_t kApplicationId = 0x4f505453;  // "OPTS"
constexpr int64_t kSchemaVersion = 1;

// Rows in order of the monotonic `seq`, so that new rows go to the end of the tree; ids are random.
constexpr const char* kSchema = R"sql(
  CREATE TABLE meta(one INTEGER PRIMARY KEY CHECK(one = 1), term INTEGER NOT NULL, next_seq INTEGER NOT NULL);
  INSERT INTO meta VALUES(1, 0, 1);
  CREATE TABLE jobs(
    seq INTEGER PRIMARY KEY, id BLOB NOT NULL, accepted_wall_ms INTEGER NOT NULL, sha256 BLOB NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, crashes INTEGER NOT NULL DEFAULT 0,
    lease_term INTEGER NOT NULL DEFAULT 0, lease INTEGER NOT NULL DEFAULT 0,
    crc INTEGER NOT NULL, spec BLOB NOT NULL);
  CREATE TABLE progress(seq INTEGER PRIMARY KEY, crc INTEGER NOT NULL, ids BLOB NOT NULL);
  CREATE TABLE results(
    seq INTEGER PRIMARY KEY, id BLOB NOT NULL, expires_wall_ms INTEGER NOT NULL,
    tenant TEXT NOT NULL, key TEXT NOT NULL, sha256 BLOB NOT NULL, crc INTEGER NOT NULL, result BLOB NOT NULL);
  CREATE INDEX results_by_id ON results(id);
  CREATE INDEX results_by_expiry ON results(expires_wall_ms);
)sql";

std::string_view bytes_of(const JobId& id) { return {reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size()}; }

// Of the payload and the id it belongs to.
int64_t checksum(std::string_view payload, const JobId& id) { return crc32c(payload, crc32c(bytes_of(id))); }

JobId id_from(std::string_view bytes) {
  JobId id;
  if (bytes.size() != id.bytes.size())
    throw Error("journal: a job id of " + std::to_string(bytes.size()) + " bytes, expected 16");
  std::memcpy(id.bytes.data(), bytes.data(), id.bytes.size());
  return id;
}

[[noreturn]] void fail_damaged(const char* what, const JobId& id) {
  throw Error(std::string("journal: the stored ") + what + " of job " + id.hex() +
              " does not match its checksum: the file is damaged; move it away and restore the latest backup");
}

}  // namespace

struct JournalDatabase::Statements {
  explicit Statements(Database& database)
      : begin(database, "BEGIN IMMEDIATE"),
        commit(database, "COMMIT"),
        accept(database, "INSERT INTO jobs(seq, id, accepted_wall_ms, sha256, crc, spec) VALUES(?, ?, ?, ?, ?, ?)"),
        lease(database, "UPDATE jobs SET lease_term = ?2, lease = ?3, attempts = ?4 WHERE seq = ?1"),
        progress(
            database,
            "INSERT INTO progress(seq, crc, ids) SELECT ?1, ?2, ?3 WHERE EXISTS(SELECT 1 FROM jobs WHERE seq = ?1) "
            "ON CONFLICT(seq) DO UPDATE SET crc = excluded.crc, ids = excluded.ids"),
        erase_job(database, "DELETE FROM jobs WHERE seq = ? AND id = ?"),
        erase_progress(database, "DELETE FROM progress WHERE seq = ?"),
        finish(database,
               "INSERT INTO results(seq, id, expires_wall_ms, tenant, key, sha256, crc, result) "
               "VALUES(?, ?, ?, ?, ?, ?, ?, ?)"),
        find(database, "SELECT crc, result FROM results WHERE id = ? AND expires_wall_ms > ?"),
        purge(database,
              "DELETE FROM results WHERE seq IN "
              "(SELECT seq FROM results WHERE expires_wall_ms <= ? ORDER BY expires_wall_ms LIMIT ?)"),
        next_seq(database, "UPDATE meta SET next_seq = ?") {}
  Statement begin, commit, accept, lease, progress, erase_job, erase_progress, finish, find, purge, next_seq;
  int64_t highest_seq = 0;
};

JournalDatabase::JournalDatabase(const JournalOptions& options, int64_t now_wall_ms, Recovery& recovery)
    : lock_(options.path + ".lock"), database_((prepare_journal_file(options.path), options.path)) {
  configure(options);
  check_or_create_schema();
  if (const std::string verdict = database_.query_text("PRAGMA quick_check(1)"); verdict != "ok") {
    throw Error("journal " + options.path + ": integrity check failed: " + verdict +
                ". Move the file away and restore the latest backup");
  }
  raise_term(recovery);
  recover_open_jobs(recovery);
  recover_keys(now_wall_ms, recovery);
  statements_ = std::make_shared<Statements>(database_);
}

void JournalDatabase::configure(const JournalOptions& options) {
  database_.execute("PRAGMA locking_mode = EXCLUSIVE");  // also keeps the WAL index in memory
  database_.execute("PRAGMA trusted_schema = OFF");
  database_.execute("PRAGMA cell_size_check = ON");
  database_.execute("PRAGMA temp_store = MEMORY");
  database_.execute("PRAGMA mmap_size = 0");
  database_.execute("PRAGMA secure_delete = ON");
  if (const std::string mode = database_.query_text("PRAGMA journal_mode = WAL"); mode != "wal") {
    throw Error("journal " + options.path + ": no write-ahead log on this file system (journal mode '" + mode +
                "'): use a local disk");
  }
  database_.execute("PRAGMA synchronous = FULL");
  database_.execute("PRAGMA wal_autocheckpoint = 0");  // checkpoints happen when we say so
  database_.execute("PRAGMA cache_size = -65536");
  if (options.database_bytes_max > 0) {
    const std::string limit =
        "PRAGMA max_page_count = " + std::to_string(std::max<int64_t>(1, options.database_bytes_max / kPageBytes));
    database_.execute(limit.c_str());
  }
  const auto count_pages = [](void* pages, sqlite3*, const char*, int in_wal) {
    *static_cast<int64_t*>(pages) = in_wal;
    return SQLITE_OK;
  };
  sqlite3_wal_hook(database_.handle(), count_pages, &wal_pages_);
}

void JournalDatabase::check_or_create_schema() {
  const int64_t tables = database_.query_number("SELECT count(*) FROM sqlite_schema");
  const int64_t application = database_.query_number("PRAGMA application_id");
  const int64_t version = database_.query_number("PRAGMA user_version");
  if (tables == 0 && application == 0) {
    const std::string create = "BEGIN IMMEDIATE; PRAGMA application_id = " + std::to_string(kApplicationId) +
                               "; PRAGMA user_version = " + std::to_string(kSchemaVersion) + ";" + kSchema + "COMMIT;";
    database_.execute(create.c_str());
    return;
  }
  if (application != kApplicationId) {
    throw Error("journal: this database belongs to another application (id " + std::to_string(application) +
                ", expected " + std::to_string(kApplicationId) + "): name another path");
  }
  if (version != kSchemaVersion) {
    throw Error("journal: schema version " + std::to_string(version) + ", this build reads version " +
                std::to_string(kSchemaVersion) + ": start the version of optserve that wrote it");
  }
}

void JournalDatabase::raise_term(Recovery& recovery) {
  // One transaction: the new term, and one crash counted for each job that was leased when the last one ended. Its last
  // attempt was cut short by us, not by a worker, and is taken back.
  database_.execute(
      "BEGIN IMMEDIATE; UPDATE meta SET term = term + 1;"
      "UPDATE jobs SET crashes = crashes + 1, attempts = max(attempts - 1, 0), lease = 0 WHERE lease > 0; COMMIT;");
  Statement meta(database_, "SELECT term, next_seq FROM meta");
  if (!meta.step()) throw Error("journal: its row of terms is missing: restore the latest backup");
  recovery.term = static_cast<uint64_t>(meta.column_number(0));
  recovery.next_order = static_cast<uint64_t>(meta.column_number(1));
}

void JournalDatabase::recover_open_jobs(Recovery& recovery) {
  Statement rows(database_,
                 "SELECT jobs.seq, id, accepted_wall_ms, sha256, attempts, crashes, jobs.crc, spec, progress.crc, ids "
                 "FROM jobs LEFT JOIN progress USING(seq) ORDER BY jobs.seq");
  while (rows.step()) {
    OpenJob job;
    job.accepted.order = static_cast<uint64_t>(rows.column_number(0));
    job.accepted.job = id_from(rows.column_bytes(1));
    job.accepted.accepted_wall_ms = rows.column_number(2);
    job.accepted.payload_sha256 = rows.column_bytes(3);
    job.attempts = static_cast<int32_t>(rows.column_number(4));
    job.crashes = static_cast<int32_t>(rows.column_number(5));
    const std::string_view spec = rows.column_bytes(7);
    if (rows.column_number(6) != checksum(spec, job.accepted.job)) fail_damaged("request", job.accepted.job);
    auto decoded = protocol::decode_job_spec(spec);
    if (!decoded.ok())
      throw Error("journal: request of job " + job.accepted.job.hex() + ": " + decoded.refusal().message);
    job.accepted.spec = std::move(decoded).value();
    const std::string_view ids = rows.column_bytes(9);
    if (!ids.empty()) {
      if (rows.column_number(8) != checksum(ids, job.accepted.job)) fail_damaged("progress", job.accepted.job);
      job.progress.resize(ids.size() / sizeof(TokenId));
      std::memcpy(job.progress.data(), ids.data(), job.progress.size() * sizeof(TokenId));
    }
    recovery.next_order = std::max(recovery.next_order, job.accepted.order + 1);
    recovery.open.push_back(std::move(job));
  }
}

void JournalDatabase::recover_keys(int64_t now_wall_ms, Recovery& recovery) {
  Statement rows(database_,
                 "SELECT tenant, key, sha256, id, expires_wall_ms FROM results WHERE expires_wall_ms > ? ORDER BY seq");
  rows.bind(1, now_wall_ms);
  while (rows.step()) {
    recovery.keys.push_back({std::string(rows.column_bytes(0)), std::string(rows.column_bytes(1)),
                             std::string(rows.column_bytes(2)), id_from(rows.column_bytes(3)), rows.column_number(4)});
  }
  const int64_t highest = database_.query_number("SELECT max(seq) FROM results");
  recovery.next_order = std::max(recovery.next_order, static_cast<uint64_t>(highest) + 1);
}

void JournalDatabase::commit(std::span<const Record> records) {
  Statements& sql = *statements_;
  sql.begin.run();
  const int64_t highest_before = sql.highest_seq;
  for (const Record& record : records) {
    std::visit([this](const auto& body) { apply(body); }, record);
  }
  if (sql.highest_seq != highest_before) sql.next_seq.bind(1, sql.highest_seq + 1).run();
  sql.commit.run();
}

void JournalDatabase::apply(const Accepted& record) {
  const std::string encoded = record.encoded_spec.empty() ? protocol::encode_job_spec(record.spec) : std::string();
  const std::string& spec = record.encoded_spec.empty() ? encoded : record.encoded_spec;
  statements_->accept.bind(1, static_cast<int64_t>(record.order))
      .bind_blob(2, bytes_of(record.job))
      .bind(3, record.accepted_wall_ms)
      .bind_blob(4, record.payload_sha256)
      .bind(5, checksum(spec, record.job))
      .bind_blob(6, spec)
      .run();
  statements_->highest_seq = std::max(statements_->highest_seq, static_cast<int64_t>(record.order));
}

void JournalDatabase::apply(const Leased& record) {
  statements_->lease.bind(1, static_cast<int64_t>(record.order))
      .bind(2, static_cast<int64_t>(record.token.term))
      .bind(3, static_cast<int64_t>(record.token.number))
      .bind(4, record.attempt)
      .run();
}

void JournalDatabase::apply(const Progress& record) {
  const std::string_view ids(reinterpret_cast<const char*>(record.ids.data()), record.ids.size() * sizeof(TokenId));
  statements_->progress.bind(1, static_cast<int64_t>(record.order))
      .bind(2, checksum(ids, record.job))
      .bind_blob(3, ids)
      .run();
}

void JournalDatabase::apply(const Finished& record) {
  Statements& sql = *statements_;
  const protocol::JobResult& result = record.result;
  const auto seq = static_cast<int64_t>(record.order);
  sql.erase_job.bind(1, seq).bind_blob(2, bytes_of(result.job)).run();
  if (database_.changes() == 0) return;  // terminal already: the first one stands
  sql.erase_progress.bind(1, seq).run();
  const std::string encoded = protocol::encode_job_result(result);
  sql.finish.bind(1, seq)
      .bind_blob(2, bytes_of(result.job))
      .bind(3, record.expires_wall_ms)
      .bind_text(4, record.tenant)
      .bind_text(5, result.key)
      .bind_blob(6, record.payload_sha256)
      .bind(7, checksum(encoded, result.job))
      .bind_blob(8, encoded)
      .run();
}

void JournalDatabase::apply(const Requeued&) {}
void JournalDatabase::apply(const ModeSet&) {}

std::optional<protocol::JobResult> JournalDatabase::find_result(const JobId& job, int64_t now_wall_ms) {
  Statement& find = statements_->find;
  find.bind_blob(1, bytes_of(job)).bind(2, now_wall_ms);
  if (!find.step()) return std::nullopt;
  const std::string_view bytes = find.column_bytes(1);
  if (find.column_number(0) != checksum(bytes, job)) fail_damaged("result", job);
  auto result = protocol::decode_job_result(bytes);
  find.reset();
  if (!result.ok()) throw Error("journal: result of job " + job.hex() + ": " + result.refusal().message);
  return std::move(result).value();
}

int64_t JournalDatabase::purge_expired(int64_t now_wall_ms, int64_t limit) {
  statements_->purge.bind(1, now_wall_ms).bind(2, limit).run();
  return database_.changes();
}

void JournalDatabase::checkpoint() {
  int in_wal = 0;
  int moved = 0;
  const int code = sqlite3_wal_checkpoint_v2(database_.handle(), nullptr, SQLITE_CHECKPOINT_PASSIVE, &in_wal, &moved);
  if (code != SQLITE_OK) database_.fail("checkpoint", code);
  if (in_wal == moved) wal_pages_ = 0;  // the next commit starts the log again
}

}  // namespace optserve::journal
