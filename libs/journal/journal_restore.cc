// What the command line does with a journal that no scheduler has open.
#include <cstdio>
#include <filesystem>
#include <functional>
#include <optional>

#include "journal/journal.h"
#include "journal/journal_files.h"
#include "journal/journal_schema.h"
#include "journal/replica/replica_folder.h"
#include "journal/sqlite/commit_record.h"

namespace optserve::journal {
namespace {

// Starts since the backup have used terms that it does not contain, and workers may still hold leases of these. The
// next term must be above all of them.
constexpr int64_t kTermStep = 1'000'000;

// Opens an existing journal, or throws Error.
std::unique_ptr<Database> open_existing(const std::string& path) {
  if (!std::filesystem::is_regular_file(path)) throw Error("journal " + path + ": no such file");
  prepare_journal_file(path);
  auto database = std::make_unique<Database>(path, Database::Open::kExisting);
  configure_connection(*database);
  return database;
}

void move_file(const std::string& from, const std::string& to) {
  remove_file(to);
  if (file_bytes(from) == 0) return remove_file(from);
  if (std::rename(from.c_str(), to.c_str()) != 0) throw errno_error("rename " + from + " to " + to);
}

// Changes the copy before it becomes the journal.
void check_and_fence(const std::string& copy) {
  const auto database = open_existing(copy);
  const int64_t version = schema_version(*database);
  if (version == 0) throw Error("backup: the database is empty, not a journal");
  check_integrity(*database);
  const std::string step = std::to_string(kTermStep);
  if (version == 1) {
    database->execute("UPDATE meta SET term = term + " + step);
    return;
  }
  const bool is_present = version == kSchemaVersion;
  if (is_present) check_schema(*database);
  // It gets a new id, since the commit record of the replaced journal does not apply to this one; the half that stays
  // lets it go on with its replica. Without a boot, times go on from the moment of the backup.
  database->execute(
      "BEGIN IMMEDIATE; UPDATE meta SET id = CAST(substr(id, 1, 8) || randomblob(8) AS BLOB), term = term + " + step +
      (is_present ? ", boot = ''" : "") + "; UPDATE meta SET crc = " + (is_present ? kMetaCrc : kMetaCrcV2) +
      "; COMMIT");
}

// Nothing changes the file, not even closing the last connection.
void summarize(Database& database, JournalSummary& summary) {
  sqlite3_db_config(database.handle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  database.execute("PRAGMA query_only = ON");
  summary.schema_version = schema_version(database);
  if (summary.schema_version == 0) throw Error("journal " + database.path() + ": the database is empty, not a journal");
  summary.term = static_cast<uint64_t>(database.query_number("SELECT term FROM meta"));
  summary.next_order = static_cast<uint64_t>(database.query_number("SELECT next_seq FROM meta"));
  summary.open = database.query_number("SELECT count(*) FROM jobs");
  summary.ended = database.query_number("SELECT count(*) FROM results");
  if (summary.schema_version > 1) summary.dead = database.query_number("SELECT count(*) FROM results WHERE state = 7");
  summary.oldest_open_wall_ms = database.query_number("SELECT accepted_wall_ms FROM jobs ORDER BY seq LIMIT 1");
  check_integrity(database);
}

// `make` writes the copy that is to become the journal, with its log if it has one.
void restore(const std::string& source, const std::string& path, bool replace,
             const std::function<void(const std::string& copy)>& make) {
  const FileLock lock = lock_journal(path + ".lock");
  const bool is_there = file_bytes(path) > 0 || file_bytes(path + "-wal") > 0;
  if (is_there && !replace) {
    throw Error("journal " + path + ": there is a journal already; replace it only if it is damaged or not wanted");
  }
  const std::string copy = path + ".restoring";
  remove_file(copy + "-wal");
  try {
    make(copy);
    check_and_fence(copy);
  } catch (const DamagedError& damage) {
    remove_file(copy);
    throw DamagedError(source + " is damaged; its copy says: " + damage.what());
  } catch (...) {
    remove_file(copy);
    throw;
  }
  // The log is moved with its database, since SQLite would apply it to whatever file has the name.
  move_file(path, path + ".replaced");
  move_file(path + "-wal", path + ".replaced-wal");
  remove_file(CommitRecord::path_of(path));
  publish_file(copy, path);
}

// Every segment has the row of commits, so a row that does not fit shows that pages are not those of the segments.
void check_commits(const std::string& copy, uint64_t expected) {
  const auto database = open_existing(copy);
  const auto found = static_cast<uint64_t>(database->query_number("SELECT commits FROM meta"));
  if (found == expected) return;
  throw DamagedError("its pages are those of commit " + std::to_string(found) + ", its log ends with commit " +
                     std::to_string(expected));
}

}  // namespace

JournalSummary inspect_journal(const std::string& path) {
  std::optional<FileLock> lock;
  if (std::filesystem::exists(path + ".lock")) lock = lock_journal(path + ".lock");  // a backup has none
  JournalSummary summary;
  summary.bytes = file_bytes(path) + file_bytes(path + "-wal");
  const auto database = open_existing(path);
  try {
    summarize(*database, summary);
  } catch (const DamagedError& error) {
    summary.damage = error.what();
  }
  return summary;
}

void restore_journal(const std::string& backup, const std::string& path, bool replace) {
  restore("backup " + backup, path, replace, [&](const std::string& copy) {
    if (file_bytes(backup) == 0) throw Error("backup " + backup + ": no such file, or an empty one");
    copy_file(backup, copy);
    if (file_bytes(backup + "-wal") > 0) copy_file(backup + "-wal", copy + "-wal");  // a replaced journal has a log
  });
}

bool holds_replica(const std::string& folder) {
  std::error_code failure;
  if (!std::filesystem::is_directory(folder, failure)) return false;
  return find_replica(*open_replica_disk(folder, ReplicaUse::kRead)).has_value();
}

RestoredReplica restore_replica(const std::string& folder, const std::string& path, bool replace) {
  const auto disk = open_replica_disk(folder, ReplicaUse::kRead);
  const auto found = find_replica(*disk);
  if (!found) throw Error("replica " + folder + ": the folder holds none");
  if (!found->last.is_complete) {
    throw Error("replica " + folder + ": its first copy of the journal was not finished; restore a backup");
  }
  restore("replica " + folder, path, replace, [&](const std::string& copy) {
    copy_file(folder + "/" + pages_name(found->copy), copy);
    apply_log(*disk->open(log_name(found->copy), false), *open_replica_file(copy));
    check_commits(copy, found->last.position.commits);
  });
  return {found->last.position.wall_ms};
}

}  // namespace optserve::journal
