// Reads everything that a queue in PostgreSQL holds, in parts, and compares each row with its checksums.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "journal/job_store.h"
#include "journal/postgres/connection.h"

namespace optserve::journal {

struct OpenRow {
  OpenJob job;  // as the row has it
  LeaseToken lease;
};
// Each throws DamagedError for a row that is not as it was written.
void read_open_jobs(Connection& connection, const std::function<void(OpenRow)>& use);
void read_ended(Connection& connection, const std::function<void(KnownKey key, uint64_t order)>& use);
std::vector<ModeSet> read_modes(Connection& connection);

// What a start does to jobs that were leased: it ends their leases and does not count the attempt, which was cut short
// by the scheduler. A start after a sudden end counts as a crash for them.
std::vector<Call> calls_to_end_leases(const std::vector<OpenRow>& leased, bool was_sudden);

JobId id_from_row(std::string_view bytes);
// The result if it is as it was written; otherwise throws DamagedError.
protocol::JobResult checked_result(const JobId& job, bool is_whole, std::string_view bytes);
// Whether a row matches its checksum. It has seq, id, state, expires_at_ms, accepted_wall_ms, tenant, grp, model, key,
// sha256, crc and result, in this order, from column `at` on.
bool is_whole_result(const Rows& rows, int row, int at);
inline constexpr const char* kResultColumns =
    "seq, id, state, expires_at_ms, accepted_wall_ms, tenant, grp, model, key, sha256, crc, result";

}  // namespace optserve::journal
