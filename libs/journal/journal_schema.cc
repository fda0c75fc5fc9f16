#include "journal/journal_schema.h"

#include <utility>
#include <vector>

#include "base/sha256.h"
#include "journal/crc32c.h"
#include "journal/journal_files.h"
#include "protocol/codec.h"

namespace optserve::journal {
namespace {

// Rows are in order of the monotonic `seq`, so that new rows go to the end of the tree; ids are random. Large values
// come last, so that reading small ones need not read their pages.
constexpr const char* kSchema = R"sql(
  CREATE TABLE meta(
    one INTEGER PRIMARY KEY CHECK(one = 1), id BLOB NOT NULL, term INTEGER NOT NULL, next_seq INTEGER NOT NULL,
    commits INTEGER NOT NULL, time_ms INTEGER NOT NULL, boot TEXT NOT NULL, uptime_ms INTEGER NOT NULL,
    crc INTEGER NOT NULL);
  CREATE TABLE jobs(
    seq INTEGER PRIMARY KEY, id BLOB NOT NULL, accepted_at_ms INTEGER NOT NULL, accepted_wall_ms INTEGER NOT NULL,
    sha256 BLOB NOT NULL, attempts INTEGER NOT NULL, crashes INTEGER NOT NULL, lease_term INTEGER NOT NULL,
    lease INTEGER NOT NULL, lease_crc INTEGER NOT NULL, crc INTEGER NOT NULL, spec BLOB NOT NULL);
  CREATE TABLE progress(seq INTEGER PRIMARY KEY, crc INTEGER NOT NULL, ids BLOB NOT NULL);
  CREATE TABLE losses(seq INTEGER PRIMARY KEY, crc INTEGER NOT NULL, reasons BLOB NOT NULL);
  CREATE TABLE results(
    seq INTEGER PRIMARY KEY, id BLOB NOT NULL, state INTEGER NOT NULL, expires_at_ms INTEGER NOT NULL,
    accepted_wall_ms INTEGER NOT NULL, tenant TEXT NOT NULL, grp TEXT NOT NULL, model TEXT NOT NULL, key TEXT NOT NULL,
    sha256 BLOB NOT NULL, crc INTEGER NOT NULL, result BLOB NOT NULL, spec BLOB NOT NULL);
  CREATE INDEX results_by_id ON results(id);
  CREATE INDEX results_by_expiry ON results(expires_at_ms);
  CREATE INDEX results_by_state ON results(state);
  CREATE INDEX results_by_group ON results(tenant, grp) WHERE grp <> '';
  CREATE TABLE modes(
    scope INTEGER NOT NULL, name TEXT NOT NULL, mode INTEGER NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY(scope, name)) WITHOUT ROWID;
)sql";

constexpr const char* kSchemaText =
    "SELECT group_concat(type || ' ' || name || ' ' || coalesce(sql, ''), ';') FROM (SELECT * FROM sqlite_schema "
    "ORDER BY type, name)";

std::string pragma(const char* name, int64_t value) {
  return std::string("PRAGMA ") + name + " = " + std::to_string(value) + ";";
}

// The checksum of version 1 covers a payload and the job's id.
void check_v1(Statement& row, int crc, int payload, int id) {
  if (row.column_number(crc) == crc32c(row.column_bytes(payload), crc32c(row.column_bytes(id)))) return;
  throw DamagedError(
      "journal: a stored payload does not match its checksum: the file is damaged; move it away and restore the latest "
      "backup");
}

template <class T>
T decoded_v1(Result<T> result, const char* what) {
  if (!result.ok()) throw Error(std::string("journal: a ") + what + " of version 1: " + result.refusal().message);
  return std::move(result).value();
}

// Digests of version 1 are of a different encoding of a request.
void move_v1_jobs(Database& database) {
  Statement rows(database,
                 "SELECT seq, id, accepted_wall_ms, attempts, crashes, lease_term, lease, crc, spec FROM jobs_old");
  Statement insert(database,
                   "INSERT INTO jobs VALUES(?1, ?2, ?3, ?3, ?4, ?5, ?6, ?7, ?8, row_crc(?1, ?5, ?6, ?7, ?8), "
                   "row_crc(?1, ?2, ?3, ?3, ?4, ?9), ?9)");
  while (rows.step()) {
    check_v1(rows, 7, 8, 1);
    const auto spec = decoded_v1(protocol::decode_job_spec(rows.column_bytes(8)), "request");
    const auto digest = sha256(protocol::encode_job_payload(spec));
    insert.bind(1, rows.column_number(0)).bind_blob(2, rows.column_bytes(1)).bind(3, rows.column_number(2));
    insert.bind_blob(4, {reinterpret_cast<const char*>(digest.data()), digest.size()});
    for (int i = 0; i < 4; ++i) insert.bind(5 + i, rows.column_number(3 + i));
    insert.bind_blob(9, rows.column_bytes(8)).run();
  }
  Statement progress(database, "SELECT p.seq, p.crc, p.ids, jobs_old.id FROM progress_old p JOIN jobs_old USING(seq)");
  Statement insert_progress(database, "INSERT INTO progress VALUES(?1, row_crc(?1, ?2), ?2)");
  while (progress.step()) {
    check_v1(progress, 1, 2, 3);
    insert_progress.bind(1, progress.column_number(0)).bind_blob(2, progress.column_bytes(2)).run();
  }
}

void move_v1_results(Database& database) {
  Statement rows(database, "SELECT seq, id, expires_wall_ms, tenant, key, crc, result FROM results_old");
  Statement insert(database,
                   "INSERT INTO results VALUES(?1, ?2, ?3, ?4, 0, ?5, '', '', ?6, x'', "
                   "row_crc(?1, ?2, ?3, ?4, 0, ?5, '', '', ?6, x'', ?7, x''), ?7, x'')");
  while (rows.step()) {
    check_v1(rows, 5, 6, 1);
    const auto result = decoded_v1(protocol::decode_job_result(rows.column_bytes(6)), "result");
    insert.bind(1, rows.column_number(0)).bind_blob(2, rows.column_bytes(1)).bind(3, static_cast<int>(result.state));
    insert.bind(4, rows.column_number(2)).bind_text(5, rows.column_bytes(3)).bind_text(6, rows.column_bytes(4));
    insert.bind_blob(7, rows.column_bytes(6)).run();
  }
}

// Earlier versions used the wall clock, which may have jumped since. So the journal's time continues from the last
// moment that the file mentions; if it mentions none, from the current time.
constexpr const char* kTimeOfV1 =
    "coalesce((SELECT max(accepted_wall_ms) FROM jobs_old), strftime('%s', 'now') * 1000)";
constexpr const char* kTimeOfV2 =
    "coalesce((SELECT nullif(max(at), 0) FROM (SELECT max(accepted_wall_ms) AS at FROM jobs_old UNION ALL "
    "SELECT max(accepted_wall_ms) FROM results_old)), strftime('%s', 'now') * 1000)";

// Rows of version 2 lack only the new times; each is checked before it gets a new checksum.
void move_v2(Database& database) {
  constexpr std::pair<const char*, const char*> kChecks[] = {
      {"its row of terms", "SELECT count(*) FROM meta_old WHERE crc IS NOT row_crc(id, term, next_seq, commits)"},
      {"a stored request",
       "SELECT count(*) FROM jobs_old WHERE crc IS NOT row_crc(seq, id, accepted_wall_ms, sha256, spec)"},
      {"a stored result",
       "SELECT count(*) FROM results_old WHERE crc IS NOT row_crc(seq, id, state, expires_wall_ms, accepted_wall_ms, "
       "tenant, grp, model, key, sha256, result, spec)"}};
  for (const auto& [what, damaged] : kChecks) {
    if (database.query_number(damaged) == 0) continue;
    throw DamagedError("journal " + database.path() + ": " + what +
                       " does not match its checksum: the file is damaged; move it away and restore the latest backup");
  }
  database.execute(
      "INSERT INTO jobs SELECT seq, id, accepted_wall_ms, accepted_wall_ms, sha256, attempts, crashes, lease_term, "
      "lease, lease_crc, row_crc(seq, id, accepted_wall_ms, accepted_wall_ms, sha256, spec), spec FROM jobs_old;"
      "INSERT INTO progress SELECT * FROM progress_old; INSERT INTO losses SELECT * FROM losses_old;"
      "INSERT INTO modes SELECT * FROM modes_old; INSERT INTO results SELECT * FROM results_old;");
  database.execute(std::string("INSERT INTO meta SELECT 1, id, term, next_seq, commits, ") + kTimeOfV2 +
                   ", '', 0, 0 FROM meta_old");
}

void keep_copy(Database& database, const std::string& path) {
  const std::string partial = path + ".partial";
  {
    const auto copy = open_copy(partial);
    sqlite3_backup* backup = sqlite3_backup_init(copy->handle(), "main", database.handle(), "main");
    if (backup == nullptr) copy->fail("copy", sqlite3_errcode(copy->handle()));
    sqlite3_backup_step(backup, -1);  // finish reports its failure
    if (const int code = sqlite3_backup_finish(backup); code != SQLITE_OK) copy->fail("copy", code);
  }
  publish_copy(partial, path);
}

}  // namespace

void configure_connection(Database& database) {
  database.execute(
      "PRAGMA locking_mode = EXCLUSIVE;"  // also keeps the WAL index in memory
      "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0;"
      "PRAGMA secure_delete = ON;");
}

int64_t schema_version(Database& database) {
  const int64_t tables = database.query_number("SELECT count(*) FROM sqlite_schema");
  const int64_t application = database.query_number("PRAGMA application_id");
  const int64_t version = database.query_number("PRAGMA user_version");
  if (tables == 0 && application == 0) return 0;
  if (application != kApplicationId) {
    throw Error("journal " + database.path() + ": this database belongs to another application (id " +
                std::to_string(application) + ", expected " + std::to_string(kApplicationId) + "): name another path");
  }
  if (version < 1 || version > kSchemaVersion) {
    throw Error("journal " + database.path() + ": schema version " + std::to_string(version) +
                ", this build reads versions 1 to " + std::to_string(kSchemaVersion) +
                ": start the version of optserve that wrote it");
  }
  return version;
}

void check_integrity(Database& database) {
  const std::string verdict = database.query_text("PRAGMA integrity_check(1)");
  if (verdict == "ok") return;
  throw DamagedError("journal " + database.path() + ": integrity check failed: " + verdict +
                     ". Move the file away and restore the latest backup");
}

void create_schema(Database& database) {
  database.execute("BEGIN IMMEDIATE;" + pragma("application_id", kApplicationId) +
                   pragma("user_version", kSchemaVersion) + kSchema +
                   "INSERT INTO meta VALUES(1, randomblob(16), 0, 1, 0, 0, '', 0, 0);"
                   "UPDATE meta SET crc = " +
                   kMetaCrc + "; COMMIT;");
}

void migrate(Database& database, int64_t version) {
  keep_copy(database, database.path() + ".v" + std::to_string(version) + ".bak");
  const bool is_v1 = version == 1;
  std::vector<std::string> tables = {"meta", "jobs", "progress", "results"};
  if (!is_v1) tables.insert(tables.end(), {"losses", "modes"});
  database.execute(
      "BEGIN IMMEDIATE; DROP INDEX results_by_id; DROP INDEX results_by_expiry;"
      "DROP INDEX IF EXISTS results_by_state; DROP INDEX IF EXISTS results_by_group");
  for (const std::string& table : tables) database.execute("ALTER TABLE " + table + " RENAME TO " + table + "_old");
  database.execute(kSchema);
  if (is_v1) {
    move_v1_jobs(database);
    move_v1_results(database);
    database.execute(std::string("INSERT INTO meta SELECT 1, randomblob(16), term, next_seq, 0, ") + kTimeOfV1 +
                     ", '', 0, 0 FROM meta_old");
  } else {
    move_v2(database);
  }
  database.execute(std::string("UPDATE meta SET crc = ") + kMetaCrc);
  for (const std::string& table : tables) database.execute("DROP TABLE " + table + "_old");
  database.execute(pragma("user_version", kSchemaVersion) + "COMMIT;");
}

void check_schema(Database& database) {
  Database expected(":memory:");
  expected.execute(kSchema);
  if (database.query_text(kSchemaText) == expected.query_text(kSchemaText)) return;
  throw DamagedError("journal " + database.path() +
                     ": its tables are not those of this version. Move the file away and restore the latest backup");
}

std::unique_ptr<Database> open_copy(const std::string& path) {
  remove_file(path);
  prepare_journal_file(path);
  auto copy = std::make_unique<Database>(path, Database::Open::kExisting);
  configure_connection(*copy);
  copy->execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF");  // complete in the end, or thrown away
  return copy;
}

void publish_copy(const std::string& partial, const std::string& path) {
  {
    Database copy(partial, Database::Open::kExisting);
    configure_connection(copy);
    if (const std::string verdict = copy.query_text("PRAGMA quick_check(1)"); verdict != "ok") {
      throw Error("the copy " + partial + " does not pass its check (" + verdict + "): its disk may be failing");
    }
  }
  publish_file(partial, path);
}

}  // namespace optserve::journal
