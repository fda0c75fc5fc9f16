#include "journal/postgres/reading.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "journal/journal_storage.h"
#include "journal/postgres/batch.h"
#include "journal/postgres/row_sum.h"
#include "protocol/codec.h"

namespace optserve::journal {
namespace {

constexpr int64_t kRowsAPart = 2'000;

[[noreturn]] void fail_row(const std::string& what) {
  throw DamagedError("journal: " + what + " does not match its checksum: the table is damaged; restore the backup");
}

// Reasons are stored with their length and checksum in front.
std::vector<std::string> checked_losses(std::string_view bytes, const JobId& job) {
  std::vector<std::string> reasons;
  while (!bytes.empty()) {
    uint32_t head[2] = {};
    if (bytes.size() >= sizeof head) std::memcpy(head, bytes.data(), sizeof head);
    bytes.remove_prefix(std::min(bytes.size(), sizeof head));
    const std::string_view reason = bytes.substr(0, head[0]);
    if (reason.size() != head[0] || head[0] == 0 || crc32c(reason) != head[1]) {
      fail_row("the stored losses of job " + job.hex());
    }
    reasons.emplace_back(reason);
    bytes.remove_prefix(reason.size());
  }
  return reasons;
}

// Calls `use` with each row of `select`, whose first column is the seq by which the next part continues.
void read_parts(Connection& connection, const std::string& select,
                const std::function<void(const Rows&, int row)>& use) {
  int64_t after = 0;
  for (;;) {
    Values values;
    values.add(after).add(kRowsAPart);
    const Rows rows = connection.query(select, std::move(values));
    for (int row = 0; row < rows.size(); ++row) use(rows, row);
    if (rows.size() < kRowsAPart) return;
    after = rows.number(rows.size() - 1, 0);
  }
}

OpenRow open_row(const Rows& rows, int row) {
  OpenRow found;
  Accepted& accepted = found.job.accepted;
  const int64_t seq = rows.number(row, 0);
  accepted.order = static_cast<uint64_t>(seq);
  accepted.job = id_from_row(rows.bytes(row, 1));
  accepted.accepted_at_ms = rows.number(row, 2);
  accepted.accepted_wall_ms = rows.number(row, 3);
  accepted.payload_sha256 = rows.bytes(row, 4);
  const std::string_view spec = rows.bytes(row, 7);
  const int64_t crc = RowSum()
                          .add(seq)
                          .add(rows.bytes(row, 1))
                          .add(accepted.accepted_at_ms)
                          .add(accepted.accepted_wall_ms)
                          .add(accepted.payload_sha256)
                          .value();
  if (crc != rows.number(row, 5) || RowSum().add(spec).value() != rows.number(row, 6)) {
    fail_row("the stored request of job " + accepted.job.hex());
  }
  auto decoded = protocol::decode_job_spec(spec);
  if (!decoded.ok()) throw Error("journal: request of job " + accepted.job.hex() + ": " + decoded.refusal().message);
  accepted.spec = std::move(decoded).value();
  if (rows.is_null(row, 8)) return found;
  const int64_t attempts = rows.number(row, 8), term = rows.number(row, 10), lease = rows.number(row, 11);
  if (RowSum().add(seq).add(attempts).add(term).add(lease).value() != rows.number(row, 12)) {
    fail_row("the stored lease of job " + accepted.job.hex());
  }
  found.job.attempts = static_cast<int32_t>(attempts);
  found.job.crashes = static_cast<int32_t>(rows.number(row, 9));
  found.lease = {static_cast<uint64_t>(term), static_cast<uint64_t>(lease)};
  found.job.losses = checked_losses(rows.bytes(row, 13), accepted.job);
  const std::string_view ids = rows.bytes(row, 15);
  if (!ids.empty() && RowSum().add(seq).add(ids).value() != rows.number(row, 14)) {
    fail_row("the stored progress of job " + accepted.job.hex());
  }
  found.job.progress.resize(ids.size() / sizeof(TokenId));
  if (!ids.empty()) std::memcpy(found.job.progress.data(), ids.data(), found.job.progress.size() * sizeof(TokenId));
  return found;
}

}  // namespace

JobId id_from_row(std::string_view bytes) {
  JobId id;
  if (bytes.size() != id.bytes.size()) {
    throw DamagedError("journal: a job id of " + std::to_string(bytes.size()) + " bytes, expected 16");
  }
  std::memcpy(id.bytes.data(), bytes.data(), id.bytes.size());
  return id;
}

protocol::JobResult checked_result(const JobId& job, bool is_whole, std::string_view bytes) {
  auto result = protocol::decode_job_result(bytes);
  if (!is_whole || !result.ok()) {
    throw DamagedError("the stored result of job " + job.hex() +
                       " does not match its checksum: the journal is damaged; restore the latest backup");
  }
  return std::move(result).value();
}

bool is_whole_result(const Rows& rows, int row, int at) {
  RowSum sum;
  for (int column = at; column < at + 12; ++column) {
    const int place = column - at;
    if (place == 10) continue;  // the checksum itself
    const bool is_number = place == 0 || (place >= 2 && place <= 4);
    if (is_number) {
      sum.add(rows.number(row, column));
    } else {
      sum.add(rows.bytes(row, column));
    }
  }
  return sum.value() == rows.number(row, at + 10);
}

void read_open_jobs(Connection& connection, const std::function<void(OpenRow)>& use) {
  read_parts(connection,
             "SELECT j.seq, j.id, j.accepted_at_ms, j.accepted_wall_ms, j.sha256, j.crc, j.spec_crc, j.spec, "
             "w.attempts, w.crashes, w.lease_term, w.lease, w.crc, w.losses, w.progress_crc, w.progress "
             "FROM jobs j LEFT JOIN work w ON w.seq = j.seq WHERE j.seq > $1::bigint ORDER BY j.seq LIMIT $2::bigint",
             [&](const Rows& rows, int row) { use(open_row(rows, row)); });
}

void read_ended(Connection& connection, const std::function<void(KnownKey key, uint64_t order)>& use) {
  read_parts(connection,
             std::string("SELECT ") + kResultColumns +
                 ", spec_crc, spec FROM results WHERE seq > $1::bigint ORDER BY seq LIMIT $2::bigint",
             [&](const Rows& rows, int row) {
               const JobId job = id_from_row(rows.bytes(row, 1));
               if (!is_whole_result(rows, row, 0)) fail_row("the stored result of job " + job.hex());
               if (RowSum().add(rows.bytes(row, 13)).value() != rows.number(row, 12)) {
                 fail_row("the stored request of the dead job " + job.hex());
               }
               use({rows.text(row, 5), rows.text(row, 8), rows.text(row, 9), job, rows.number(row, 3),
                    rows.text(row, 6), static_cast<protocol::JobState>(rows.number(row, 2))},
                   static_cast<uint64_t>(rows.number(row, 0)));
             });
}

std::vector<ModeSet> read_modes(Connection& connection) {
  std::vector<ModeSet> modes;
  const Rows rows = connection.query("SELECT scope, name, mode, crc FROM modes ORDER BY scope, name");
  for (int row = 0; row < rows.size(); ++row) {
    const int64_t sum = RowSum().add(rows.number(row, 0)).add(rows.bytes(row, 1)).add(rows.number(row, 2)).value();
    if (sum != rows.number(row, 3)) fail_row("the stored mode of '" + rows.text(row, 1) + "'");
    modes.push_back({static_cast<protocol::ControlScope>(rows.number(row, 0)), rows.text(row, 1),
                     static_cast<protocol::QueueMode>(rows.number(row, 2))});
  }
  return modes;
}

std::vector<Call> calls_to_end_leases(const std::vector<OpenRow>& leased, bool was_sudden) {
  std::vector<Call> calls;
  for (size_t begin = 0; begin < leased.size(); begin += kRowsAPart) {
    Columns rows("iiii");
    for (size_t i = begin; i < std::min(leased.size(), begin + kRowsAPart); ++i) {
      const auto seq = static_cast<int64_t>(leased[i].job.accepted.order);
      const int64_t attempts = std::max(leased[i].job.attempts - 1, 0);
      const auto term = static_cast<int64_t>(leased[i].lease.term);
      rows.add(seq).add(attempts).add(RowSum().add(seq).add(attempts).add(term).add(int64_t{0}).value());
      rows.add(int64_t{was_sudden ? 1 : 0});
    }
    calls.push_back({nullptr,
                     "UPDATE work SET attempts = e.attempts, lease = 0, crc = e.crc, crashes = crashes + e.crash "
                     "FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS e(seq, attempts, crc, "
                     "crash) WHERE work.seq = e.seq",
                     rows.take()});
  }
  return calls;
}

}  // namespace optserve::journal
