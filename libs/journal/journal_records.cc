// What each record does to the tables.
#include <algorithm>

#include "base/limits.h"
#include "base/utf8.h"
#include "journal/journal_statements.h"
#include "protocol/codec.h"

namespace optserve::journal {
namespace {

constexpr size_t kLossesMax = 2 * limits::kAttemptsMax;  // more than the attempts of a job; bounds its growth

}  // namespace

void JournalDatabase::commit(std::span<const Record> records, Instant now) {
  change(
      [&] {
        for (const Record& record : records) std::visit([this](const auto& body) { apply(body); }, record);
      },
      now);
}

void JournalDatabase::merge(const MergeStep& step, Instant now) {
  change(
      [&] {
        Statements& sql = *statements_;
        for (const Record& record : step.records) std::visit([this](const auto& body) { apply(body); }, record);
        for (const auto& [order, attempts, crashes] : step.adopted) {
          sql.adopt.bind(1, static_cast<int64_t>(order)).bind(2, attempts).bind(3, crashes).run();
        }
        for (const auto& [order, job] : step.left) {
          const auto seq = static_cast<int64_t>(order);
          sql.erase_result.bind(1, seq).run();
          sql.erase_job.bind(1, seq).bind_blob(2, bytes_of(job)).bind(3, 0).bind(4, 0).run();
          sql.erase_progress.bind(1, seq).run();
          sql.erase_losses.bind(1, seq).run();
        }
      },
      now);
}

void JournalDatabase::change(const std::function<void()>& changes, Instant now) {
  now_ = now;
  const uint64_t fenced_before = fenced_;
  try {
    Transaction transaction(*this);
    changes();
    transaction.commit();
  } catch (const SqliteError&) {
    fenced_ = fenced_before;
    throw;
  }
}

void JournalDatabase::apply(const Accepted& record) {
  const std::string encoded = record.encoded_spec.empty() ? protocol::encode_job_spec(record.spec) : std::string();
  const std::string& spec = record.encoded_spec.empty() ? encoded : record.encoded_spec;
  statements_->accept.bind(1, static_cast<int64_t>(record.order))
      .bind_blob(2, bytes_of(record.job))
      .bind(3, record.accepted_at_ms)
      .bind(4, record.accepted_wall_ms)
      .bind_blob(5, record.payload_sha256)
      .bind_blob(6, spec)
      .run();
  next_seq_ = std::max(next_seq_, static_cast<int64_t>(record.order) + 1);
}

void JournalDatabase::apply(const Leased& record) {
  const auto seq = static_cast<int64_t>(record.order);
  statements_->lease.bind(1, seq)
      .bind(2, static_cast<int64_t>(record.token.term))
      .bind(3, static_cast<int64_t>(record.token.number))
      .bind(4, record.attempt)
      .run();
  if (record.token.number == 0 && !record.loss.empty()) add_loss(seq, record.loss);
}

void JournalDatabase::add_loss(int64_t seq, const std::string& loss) {
  std::string reasons;
  Statement& known = statements_->losses;
  known.bind(1, seq);
  if (known.step()) reasons = known.column_text(0);
  known.reset();
  std::string_view reason(loss);
  reason = reason.substr(0, limits::kLossReasonBytesMax);
  reason = reason.substr(0, valid_utf8_prefix(reason));
  const auto size = static_cast<uint32_t>(reason.size());
  if (reasons.size() + sizeof size + size > kLossesMax * (limits::kLossReasonBytesMax + sizeof size)) return;
  reasons.append(reinterpret_cast<const char*>(&size), sizeof size).append(reason);
  statements_->lose.bind(1, seq).bind_blob(2, reasons).run();
}

void JournalDatabase::apply(const Progress& record) {
  const std::string_view ids(reinterpret_cast<const char*>(record.ids.data()), record.ids.size() * sizeof(TokenId));
  statements_->progress.bind(1, static_cast<int64_t>(record.order)).bind_blob(2, ids).run();
}

std::string JournalDatabase::spec_of(int64_t seq) {
  Statement& find = statements_->spec;
  find.bind(1, seq);
  std::string spec = find.step() ? find.column_text(0) : std::string();
  find.reset();
  return spec;
}

void JournalDatabase::apply(const Finished& record) {
  Statements& sql = *statements_;
  const protocol::JobResult& result = record.result;
  const auto seq = static_cast<int64_t>(record.order);
  const bool is_dead = result.state == protocol::JobState::kDead;
  const std::string spec = !is_dead ? "" : record.encoded_spec.empty() ? spec_of(seq) : record.encoded_spec;
  sql.erase_job.bind(1, seq).bind_blob(2, bytes_of(result.job));
  sql.erase_job.bind(3, static_cast<int64_t>(record.token.term))
      .bind(4, static_cast<int64_t>(record.token.number))
      .run();
  if (database_.changes() == 0) {  // already terminal, so that the first end stands; or not of the job's lease
    sql.is_open.bind(1, seq).bind_blob(2, bytes_of(result.job));
    if (sql.is_open.step()) ++fenced_;
    sql.is_open.reset();
    return;
  }
  sql.erase_progress.bind(1, seq).run();
  sql.erase_losses.bind(1, seq).run();
  const std::string encoded = protocol::encode_job_result(result);
  const int64_t expires =
      is_dead ? std::max(record.expires_at_ms, time_->ms(now_) + dead_ttl_ms_) : record.expires_at_ms;
  sql.finish.bind(1, seq).bind_blob(2, bytes_of(result.job)).bind(3, static_cast<int64_t>(result.state));
  sql.finish.bind(4, expires).bind(5, record.accepted_wall_ms).bind_text(6, record.tenant).bind_text(7, result.group);
  sql.finish.bind_text(8, record.model).bind_text(9, result.key).bind_blob(10, record.payload_sha256);
  sql.finish.bind_blob(11, encoded).bind_blob(12, spec).run();
}

// A dead job that was purged meanwhile is not restored.
void JournalDatabase::apply(const Requeued& record) {
  statements_->erase_dead.bind(1, static_cast<int64_t>(record.dead_order))
      .bind_blob(2, bytes_of(record.accepted.job))
      .bind(3, static_cast<int64_t>(protocol::JobState::kDead))
      .run();
  if (database_.changes() != 0) apply(record.accepted);
}

void JournalDatabase::apply(const ModeSet& record) {
  const auto scope = static_cast<int64_t>(record.scope);
  if (record.mode == protocol::QueueMode::kOpen) {
    statements_->erase_mode.bind(1, scope).bind_text(2, record.name).run();
  } else {
    statements_->set_mode.bind(1, scope).bind_text(2, record.name).bind(3, static_cast<int64_t>(record.mode)).run();
  }
}

}  // namespace optserve::journal
