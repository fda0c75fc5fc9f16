// The journal's file: refused, migrated from version 1, copied, restored, inspected.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/sha256.h"
#include "journal/crc32c.h"
#include "journal/journal_test_support.h"

namespace optserve::journal {
namespace journal_files_test {

using namespace testing;  // NOLINT: the tests' own
using ::testing::HasSubstr;

TEST(JournalFiles, WhatIsNotAJournalIsRefused) {
  TempFolder folder;
  const std::string garbage = folder.file("garbage");
  write_file(garbage, "this is a text file, longer than sixteen bytes");
  EXPECT_THAT(open_error({.path = garbage}), HasSubstr("not a database"));

  const std::string foreign = folder.file("foreign");
  Database(foreign).execute("CREATE TABLE t(x)");
  ::chmod(foreign.c_str(), 0600);
  const std::string before = read_file(foreign);
  EXPECT_THAT(open_error({.path = foreign}), HasSubstr("another application"));
  EXPECT_EQ(read_file(foreign), before);

  const std::string newer = folder.file("newer");
  EXPECT_EQ(open_error({.path = newer}), "");
  Database(newer).execute("PRAGMA user_version = 9");
  EXPECT_THAT(open_error({.path = newer}), HasSubstr("schema version 9, this build reads versions 1 to 3"));

  const std::string altered = folder.file("altered");
  EXPECT_EQ(open_error({.path = altered}), "");
  Database(altered).execute("DROP INDEX results_by_state");
  EXPECT_THAT(open_error({.path = altered}), HasSubstr("its tables are not those of this version"));

  const std::string link = folder.file("link");
  std::filesystem::create_symlink(newer, link);
  EXPECT_THAT(open_error({.path = link}), HasSubstr("expected a regular file"));

  const std::string shared = folder.file("shared");
  EXPECT_EQ(open_error({.path = shared}), "");
  ::chmod(shared.c_str(), 0666);
  EXPECT_THAT(open_error({.path = shared}), HasSubstr("other users may write"));

  EXPECT_THAT(open_error({.path = folder.file("no/such/folder/journal")}), HasSubstr("No such file or directory"));
}

// --- version 1

constexpr const char* kVersion1 = R"sql(
  PRAGMA application_id = 1330664531; PRAGMA user_version = 1;
  CREATE TABLE meta(one INTEGER PRIMARY KEY CHECK(one = 1), term INTEGER NOT NULL, next_seq INTEGER NOT NULL);
  INSERT INTO meta VALUES(1, 6, 41);
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

std::string_view bytes_of(const JobId& id) { return {reinterpret_cast<const char*>(id.bytes.data()), 16}; }

void add_v1_job(Database& database, const Accepted& job, int attempts, int lease) {
  const std::string spec = protocol::encode_job_spec(job.spec);
  const auto seq = static_cast<int64_t>(job.order);
  Statement insert(database, "INSERT INTO jobs VALUES(?, ?, ?, x'00', ?, 1, 6, ?, ?, ?)");
  insert.bind(1, seq).bind_blob(2, bytes_of(job.job)).bind(3, job.accepted_wall_ms).bind(4, attempts).bind(5, lease);
  insert.bind(6, crc32c(spec, crc32c(bytes_of(job.job)))).bind_blob(7, spec).run();
  const std::string ids("\5\0\0\0\6\0\0\0", 8);
  Statement progress(database, "INSERT INTO progress VALUES(?, ?, ?)");
  progress.bind(1, seq).bind(2, crc32c(ids, crc32c(bytes_of(job.job)))).bind_blob(3, ids).run();
}

void make_version_1(const std::string& path, int64_t results) {
  Database database(path);
  ::chmod(path.c_str(), 0600);
  database.execute("PRAGMA journal_mode = WAL");
  database.execute(kVersion1);
  add_v1_job(database, accepted(5), 2, 9);
  add_v1_job(database, accepted(7), 0, 0);
  Statement insert(database, "INSERT INTO results VALUES(?, ?, ?, 'tenant', ?, x'11', ?, ?)");
  for (int64_t seq = 10; seq < 10 + results; ++seq) {
    const Finished ended = finished(static_cast<uint64_t>(seq), "kept");
    const std::string bytes = protocol::encode_job_result(ended.result);
    const JobId job = ended.result.job;
    insert.bind(1, seq).bind_blob(2, bytes_of(job)).bind(3, ended.expires_at_ms).bind_text(4, ended.result.key);
    insert.bind(5, crc32c(bytes, crc32c(bytes_of(job)))).bind_blob(6, bytes).run();
  }
}

TEST(JournalFiles, Version1IsRaisedWithACopyKept) {
  TempFolder folder;
  const std::string path = folder.file("journal.db");
  make_version_1(path, 3);
  for (const uint64_t term : {7, 8}) {  // the second start finds the current version
    Recovery recovery;
    auto journal = open_journal({.path = path}, recovery);
    EXPECT_EQ(recovery.term, term);
    EXPECT_EQ(recovery.next_order, 41u);
    ASSERT_EQ(recovery.open.size(), 2u);
    EXPECT_EQ(recovery.open[0].accepted.job, id_of(5));
    EXPECT_EQ(recovery.open[0].accepted.spec, accepted(5).spec);
    EXPECT_EQ(recovery.open[0].accepted.accepted_wall_ms, 1'005);
    EXPECT_EQ(recovery.open[0].attempts, 1);
    EXPECT_EQ(recovery.open[0].crashes, 2);
    EXPECT_EQ(recovery.open[0].progress, (std::vector<TokenId>{5, 6}));
    const auto digest = sha256(protocol::encode_job_payload(accepted(7).spec));
    EXPECT_EQ(recovery.open[1].accepted.payload_sha256,
              std::string(reinterpret_cast<const char*>(digest.data()), digest.size()));
    ASSERT_EQ(recovery.keys.size(), 3u);
    EXPECT_EQ(recovery.keys[0].key, "key-10");
    EXPECT_EQ(recovery.keys[0].tenant, "tenant");
    EXPECT_EQ(recovery.keys[0].payload_sha256, "");
    EXPECT_EQ(recovery.keys[0].state, protocol::JobState::kSucceeded);
    EXPECT_EQ(fetch(*journal, id_of(11))->text, "kept");
  }
  Database copy(path + ".v1.bak", Database::Open::kExisting);
  EXPECT_EQ(copy.query_number("PRAGMA user_version"), 1);
  EXPECT_EQ(copy.query_number("SELECT term FROM meta"), 6);
  EXPECT_EQ(copy.query_number("SELECT count(*) FROM jobs"), 2);
}

TEST(JournalFiles, ADamagedVersion1IsLeftAsItIs) {
  TempFolder folder;
  const std::string path = folder.file("journal.db");
  make_version_1(path, 1);
  Database(path).execute("UPDATE jobs SET crc = crc + 1 WHERE seq = 7");
  EXPECT_THAT(open_error({.path = path}), HasSubstr("does not match its checksum"));
  EXPECT_EQ(Database(path).query_number("PRAGMA user_version"), 1);
  EXPECT_EQ(Database(path).query_number("SELECT count(*) FROM jobs"), 2);
}

// --- version 2: times were kept by the wall clock

constexpr const char* kVersion2 = R"sql(
  PRAGMA application_id = 1330664531; PRAGMA user_version = 2;
  CREATE TABLE meta(
    one INTEGER PRIMARY KEY CHECK(one = 1), id BLOB NOT NULL, term INTEGER NOT NULL, next_seq INTEGER NOT NULL,
    commits INTEGER NOT NULL, crc INTEGER NOT NULL);
  CREATE TABLE jobs(
    seq INTEGER PRIMARY KEY, id BLOB NOT NULL, accepted_wall_ms INTEGER NOT NULL, sha256 BLOB NOT NULL,
    attempts INTEGER NOT NULL, crashes INTEGER NOT NULL, lease_term INTEGER NOT NULL, lease INTEGER NOT NULL,
    lease_crc INTEGER NOT NULL, crc INTEGER NOT NULL, spec BLOB NOT NULL);
  CREATE TABLE progress(seq INTEGER PRIMARY KEY, crc INTEGER NOT NULL, ids BLOB NOT NULL);
  CREATE TABLE losses(seq INTEGER PRIMARY KEY, crc INTEGER NOT NULL, reasons BLOB NOT NULL);
  CREATE TABLE results(
    seq INTEGER PRIMARY KEY, id BLOB NOT NULL, state INTEGER NOT NULL, expires_wall_ms INTEGER NOT NULL,
    accepted_wall_ms INTEGER NOT NULL, tenant TEXT NOT NULL, grp TEXT NOT NULL, model TEXT NOT NULL, key TEXT NOT NULL,
    sha256 BLOB NOT NULL, crc INTEGER NOT NULL, result BLOB NOT NULL, spec BLOB NOT NULL);
  CREATE INDEX results_by_id ON results(id);
  CREATE INDEX results_by_expiry ON results(expires_wall_ms);
  CREATE INDEX results_by_state ON results(state);
  CREATE INDEX results_by_group ON results(tenant, grp) WHERE grp <> '';
  CREATE TABLE modes(
    scope INTEGER NOT NULL, name TEXT NOT NULL, mode INTEGER NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY(scope, name)) WITHOUT ROWID;
  INSERT INTO meta VALUES(1, x'000102030405060708090a0b0c0d0e0f', 6, 41, 9, row_crc(x'000102030405060708090a0b0c0d0e0f',
    6, 41, 9));
  UPDATE meta SET crc = row_crc(id, term, next_seq, commits);
  INSERT INTO modes VALUES(1, 'opt', 1, row_crc(1, 'opt', 1));
)sql";

constexpr int64_t kAcceptedV2 = 1'767'225'599'000;

void make_version_2(const std::string& path) {
  Database database(path);
  ::chmod(path.c_str(), 0600);
  database.execute("PRAGMA journal_mode = WAL");
  database.execute(kVersion2);
  const Accepted job = accepted(5);
  const std::string spec = protocol::encode_job_spec(job.spec);
  Statement insert(database,
                   "INSERT INTO jobs VALUES(5, ?1, ?2, ?3, 1, 0, 0, 0, row_crc(5, 1, 0, 0, 0), "
                   "row_crc(5, ?1, ?2, ?3, ?4), ?4)");
  insert.bind_blob(1, bytes_of(job.job)).bind(2, kAcceptedV2).bind_blob(3, job.payload_sha256);
  insert.bind_blob(4, spec).run();
  database.execute("INSERT INTO progress VALUES(5, row_crc(5, x'0500000006000000'), x'0500000006000000')");
  const Finished ended = finished(4, "kept");
  const std::string result = protocol::encode_job_result(ended.result);
  Statement keep(database,
                 "INSERT INTO results VALUES(4, ?1, 3, ?2, ?3, 'tenant', '', 'opt', 'key-4', x'11', "
                 "row_crc(4, ?1, 3, ?2, ?3, 'tenant', '', 'opt', 'key-4', x'11', ?4, x''), ?4, x'')");
  keep.bind_blob(1, bytes_of(ended.result.job)).bind(2, kAcceptedV2 + 60'000).bind(3, kAcceptedV2 - 1'000);
  keep.bind_blob(4, result).run();
}

TEST(JournalFiles, Version2IsRaisedAndItsTimesGoOn) {
  TempFolder folder;
  const std::string path = folder.file("journal.db");
  make_version_2(path);
  FakeClock clock;
  {
    Recovery recovery;
    auto journal = Journal::open({.path = path, .boot = "a"}, clock, recovery);
    EXPECT_EQ(recovery.term, 7u);
    EXPECT_EQ(recovery.next_order, 41u);
    ASSERT_EQ(recovery.open.size(), 1u);
    EXPECT_EQ(recovery.open[0].accepted.spec, accepted(5).spec);
    EXPECT_EQ(recovery.open[0].accepted.accepted_wall_ms, kAcceptedV2);
    EXPECT_EQ(recovery.open[0].accepted.accepted_at_ms, journal->time_ms(clock.now()));  // the last known moment
    EXPECT_EQ(recovery.open[0].attempts, 1);
    EXPECT_EQ(recovery.open[0].progress, (std::vector<TokenId>{5, 6}));
    ASSERT_EQ(recovery.modes.size(), 1u);
    ASSERT_EQ(recovery.keys.size(), 1u);
    EXPECT_EQ(recovery.keys[0].key, "key-4");
    EXPECT_EQ(fetch(*journal, id_of(4))->text, "kept");
  }
  clock.advance(seconds(59));
  Recovery recovery;
  auto journal = Journal::open({.path = path, .boot = "a"}, clock, recovery);
  EXPECT_TRUE(fetch(*journal, id_of(4)).has_value());
  clock.advance(seconds(2));
  EXPECT_FALSE(fetch(*journal, id_of(4)).has_value());
  EXPECT_EQ(Database(path + ".v2.bak", Database::Open::kExisting).query_number("PRAGMA user_version"), 2);
}

TEST(JournalFiles, ADamagedVersion2IsLeftAsItIs) {
  for (const char* table : {"meta", "jobs", "results"}) {
    TempFolder folder;
    const std::string path = folder.file("journal.db");
    make_version_2(path);
    Database(path).execute(std::string("UPDATE ") + table + " SET crc = crc + 1");
    EXPECT_THAT(open_error({.path = path}), HasSubstr("does not match its checksum")) << table;
    EXPECT_EQ(Database(path).query_number("PRAGMA user_version"), 2);
  }
}

// --- backups

TEST(JournalFiles, ABackupMadeUnderLoadIsWholeAndCanBeRestored) {
  TempFolder folder;
  TempFolder backups;
  const std::string path = folder.file("journal.db");
  BackUpDone done;
  uint64_t before = 0;
  {
    Recovery recovery;
    JournalOptions options{.path = path};
    options.backup_folder = backups.path();
    options.backup_interval = milliseconds(0);
    auto journal = open_journal(options, recovery);
    for (uint64_t order = 1; order <= 3'000; ++order) journal->append(accepted(order, std::string(2'000, 'p')));
    journal->append(Leased{id_of(1), 1, {1, 5}, 1});
    journal->append(finished(2, "two"));
    before = 3'002;
    journal->ask(1, BackUp{});
    uint64_t order = 3'000;
    ASSERT_TRUE(wait_for([&] {
      journal->append(accepted(++order));
      for (Answer& answer : journal->poll_answers()) {
        if (const auto* told = std::get_if<BackUpDone>(&answer.body)) done = *told;
      }
      return !done.file.empty();
    }));
    EXPECT_GT(journal->durable(), before);  // commits went on
  }
  const std::string backup = backups.file(done.file);
  EXPECT_EQ(latest_backup(backups.path()), backup);
  EXPECT_EQ(done.bytes, static_cast<int64_t>(std::filesystem::file_size(backup)));
  EXPECT_THAT(done.file, ::testing::MatchesRegex("journal-[0-9]+T[0-9]+\\.[0-9]+Z\\.db"));
  const JournalSummary summary = inspect_journal(backup);
  EXPECT_GE(summary.open, 2'999);
  EXPECT_EQ(summary.ended, 1);
  EXPECT_EQ(summary.term, 1u);
  EXPECT_EQ(summary.oldest_open_wall_ms, 1'001);
  EXPECT_EQ(summary.damage, "");

  EXPECT_THAT(error_of([&] { restore_journal(backup, path, false); }), HasSubstr("there is a journal already"));
  restore_journal(backup, path, true);
  EXPECT_TRUE(std::filesystem::exists(path + ".replaced"));
  Recovery recovery;
  auto journal = open_journal({.path = path}, recovery);
  EXPECT_EQ(static_cast<int64_t>(recovery.open.size()), summary.open);
  EXPECT_EQ(recovery.open[0].crashes, 1);
  EXPECT_GT(recovery.term, 1'000'000u);  // above every term that starts since the backup may have used
  EXPECT_EQ(fetch(*journal, id_of(2))->text, "two");
}

TEST(JournalFiles, BackupsAreMadeInTheirTimeAndOldOnesRemoved) {
  TempFolder folder;
  TempFolder backups;
  write_file(backups.file("journal-20200101T000000.000Z.db.partial"), "left by a crash");
  write_file(backups.file("notes.txt"), "not ours");
  JournalOptions options{.path = folder.file("journal.db")};
  options.backup_folder = backups.path();
  options.backup_interval = milliseconds(1);
  options.backups_kept = 2;
  std::string first;
  Recovery recovery;
  auto journal = open_journal(options, recovery);
  ASSERT_TRUE(wait_for([&] { return !(first = latest_backup(backups.path())).empty(); }));
  ASSERT_TRUE(wait_for([&] { return !std::filesystem::exists(first); }));
  journal.reset();
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(backups.path())) {
    names.push_back(entry.path().filename().string());
  }
  EXPECT_EQ(names.size(), 3u) << ::testing::PrintToString(names);
  EXPECT_TRUE(std::filesystem::exists(backups.file("notes.txt")));
}

TEST(JournalFiles, ABackupThatCannotBeWrittenIsRefusedAndTheJournalGoesOn) {
  TempFolder folder;
  auto backups = std::make_unique<TempFolder>();
  JournalOptions options{.path = folder.file("journal.db")};
  Recovery recovery;
  auto journal = open_journal(options, recovery);
  EXPECT_EQ(std::get<Refusal>(ask(*journal, BackUp{})).code, ErrorCode::kUnavailable);
  journal.reset();
  options.backup_folder = backups->path();
  options.backup_interval = milliseconds(0);
  journal = open_journal(options, recovery);
  backups.reset();
  EXPECT_EQ(std::get<Refusal>(ask(*journal, BackUp{})).code, ErrorCode::kInternal);
  EXPECT_TRUE(wait_durable(*journal, journal->append(accepted(1))));
  journal.reset();
  EXPECT_THAT(open_error(options), HasSubstr("no such folder"));
}

TEST(JournalFiles, ADamagedBackupOrABusyJournalIsNotRestored) {
  TempFolder folder;
  const std::string good = folder.file("good.db");
  const std::string bad = folder.file("bad.db");
  {
    Recovery recovery;
    auto journal = open_journal({.path = good}, recovery);
    for (uint64_t order = 1; order <= 100; ++order) journal->append(accepted(order, std::string(500, 'p')));
  }
  std::string bytes = read_file(good);
  bytes.resize(bytes.size() - 4096);
  write_file(bad, bytes);
  const std::string path = folder.file("journal.db");
  EXPECT_THAT(error_of([&] { restore_journal(bad, path, false); }), HasSubstr("damaged"));
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(std::filesystem::exists(path + ".restoring"));
  EXPECT_EQ(inspect_journal(good).damage, "");
  EXPECT_NE(inspect_journal(bad).damage, "");
  EXPECT_THAT(error_of([&] { restore_journal(folder.file("none"), path, false); }), HasSubstr("no such file"));
  Recovery recovery;
  auto journal = open_journal({.path = path}, recovery);
  EXPECT_THAT(error_of([&] { restore_journal(good, path, true); }), HasSubstr("held by another process"));
  EXPECT_THAT(error_of([&] { inspect_journal(path); }), HasSubstr("held by another process"));
}

TEST(JournalFiles, InspectingChangesNothing) {
  TempFolder folder;
  const std::string path = folder.file("journal.db");
  const std::string copy = folder.file("copy.db");
  {
    Recovery recovery;
    auto journal = open_journal({.path = path}, recovery);
    wait_durable(*journal, journal->append(accepted(1)));
    write_file(copy, read_file(path));
    write_file(copy + "-wal", read_file(path + "-wal"));
  }
  const std::string database = read_file(copy), log = read_file(copy + "-wal");
  EXPECT_EQ(inspect_journal(copy).open, 1);
  EXPECT_EQ(read_file(copy), database);
  EXPECT_EQ(read_file(copy + "-wal"), log);
  EXPECT_THAT(error_of([&] { inspect_journal(folder.file("none")); }), HasSubstr("no such file"));
}

// A start that finds damage says which backup to use.
TEST(JournalFiles, DamageNamesTheLatestBackup) {
  TempFolder folder;
  TempFolder backups;
  JournalOptions options{.path = folder.file("journal.db")};
  options.backup_folder = backups.path();
  {
    Recovery recovery;
    auto journal = open_journal(options, recovery);
    journal->append(accepted(1));
    ask_for<BackUpDone>(*journal, BackUp{});
  }
  Database(options.path).execute("UPDATE jobs SET attempts = 7");
  EXPECT_THAT(open_error(options), HasSubstr("The latest backup is " + latest_backup(backups.path())));
}

}  // namespace journal_files_test
}  // namespace optserve::journal
