// The tables of a journal, and how a database gets them: they are created, or migrated from an earlier version.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "journal/sqlite/sqlite.h"

namespace optserve::journal {

inline constexpr int64_t kApplicationId = 0x4f505453;  // "OPTS"
inline constexpr int64_t kSchemaVersion = 3;

// Every value of a row is covered by a checksum, since SQLite's own checks see the structure of a page but not a
// flipped bit in a number.
inline constexpr const char* kMetaCrc = "row_crc(id, term, next_seq, commits, time_ms, boot, uptime_ms)";
inline constexpr const char* kMetaCrcV2 = "row_crc(id, term, next_seq, commits)";
inline constexpr const char* kJobCrc = "row_crc(jobs.seq, id, accepted_at_ms, accepted_wall_ms, sha256, spec)";
inline constexpr const char* kLeaseCrc = "row_crc(jobs.seq, attempts, crashes, lease_term, lease)";
inline constexpr const char* kResultCrc =
    "row_crc(seq, id, state, expires_at_ms, accepted_wall_ms, tenant, grp, model, key, sha256, result, spec)";

// The version of the schema; 0 for an empty database. Throws Error for a database of another application or of a later
// version.
int64_t schema_version(Database& database);
// Reads every page and compares every index with its table. Throws DamagedError.
void check_integrity(Database& database);
void create_schema(Database& database);
// Migrates from version 1 or 2, in one transaction, after making a copy beside the file (<path>.v1.bak, <path>.v2.bak).
void migrate(Database& database, int64_t version);
// Throws DamagedError unless the tables are what create_schema() makes.
void check_schema(Database& database);

// Sets pragmas before anything is read: one process, nothing trusted, nothing mapped.
void configure_connection(Database& database);
// A new database to copy into, which is not synced before it is published.
std::unique_ptr<Database> open_copy(const std::string& path);
// Checks the copy, syncs it and gives it its name; otherwise throws Error.
void publish_copy(const std::string& partial, const std::string& path);

}  // namespace optserve::journal
