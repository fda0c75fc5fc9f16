// Everything that a queue in PostgreSQL holds, read in parts and each row compared with its checksums.
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
// Each throws DamagedError for a row that is not what was written.
void read_open_jobs(Connection& connection, const std::function<void(OpenRow)>& use);
void read_ended(Connection& connection, const std::function<void(KnownKey key, uint64_t order)>& use);
std::vector<ModeSet> read_modes(Connection& connection);

// What a start does to jobs that were leased: their leases are over, and the attempt that was cut short by us does not
// count. A start after a sudden end counts as a crash for them.
std::vector<Call> calls_to_end_leases(const std::vector<OpenRow>& leased, bool was_sudden);

JobId id_from_row(std::string_view bytes);
// The result as it was written; throws DamagedError.
protocol::JobResult checked_result(const JobId& job, bool is_whole, std::string_view bytes);
// Of a row with seq, id, state, expires_at_ms, accepted_wall_ms, tenant, grp, model, key, sha256, crc, result in this
// order from column `at` on.
bool is_whole_result(const Rows& rows, int row, int at);
inline constexpr const char* kResultColumns =
    "seq, id, state, expires_at_ms, accepted_wall_ms, tenant, grp, model, key, sha256, crc, result";

}  // namespace optserve::journal
