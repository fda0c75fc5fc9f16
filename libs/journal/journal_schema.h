// The tables of a journal, and how a database gets them: created, or raised from an earlier version.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "journal/sqlite/sqlite.h"

namespace optserve::journal {

inline constexpr int64_t kApplicationId = 0x4f505453;  // "OPTS"
inline constexpr int64_t kSchemaVersion = 3;

// Every value of a row is under a checksum: SQLite's own checks see the shape of a page, not a flipped bit in a number.
inline constexpr const char* kMetaCrc = "row_crc(id, term, next_seq, commits, time_ms, boot, uptime_ms)";
inline constexpr const char* kMetaCrcV2 = "row_crc(id, term, next_seq, commits)";
inline constexpr const char* kJobCrc = "row_crc(jobs.seq, id, accepted_at_ms, accepted_wall_ms, sha256, spec)";
inline constexpr const char* kLeaseCrc = "row_crc(jobs.seq, attempts, crashes, lease_term, lease)";
inline constexpr const char* kResultCrc =
    "row_crc(seq, id, state, expires_at_ms, accepted_wall_ms, tenant, grp, model, key, sha256, result, spec)";

// What the file is. Throws Error for a database of another application or a later version; 0: an empty database.
int64_t schema_version(Database& database);
// Every page is read and every index compared with its table. Throws DamagedError.
void check_integrity(Database& database);
void create_schema(Database& database);
// From version 1 or 2, in one transaction, after a copy was put beside the file (<path>.v1.bak, <path>.v2.bak).
void migrate(Database& database, int64_t version);
// Throws DamagedError unless the tables are what create_schema() makes.
void check_schema(Database& database);

// Takes pragmas that hold before anything is read: one process, nothing trusted, nothing mapped.
void configure_connection(Database& database);
// A fresh database to copy into; not synced before it is published.
std::unique_ptr<Database> open_copy(const std::string& path);
// The copy is checked and takes its name, whole and synced, or Error.
void publish_copy(const std::string& partial, const std::string& path);

}  // namespace optserve::journal
