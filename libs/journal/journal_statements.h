// The prepared statements of a journal, and its transaction.
#pragma once

#include <cstring>
#include <string>
#include <string_view>

#include "journal/journal_database.h"
#include "journal/journal_schema.h"

namespace optserve::journal {

inline std::string_view bytes_of(const JobId& id) {
  return {reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size()};
}

inline JobId id_from(std::string_view bytes) {
  JobId id;
  if (bytes.size() != id.bytes.size()) {
    throw DamagedError("journal: a job id of " + std::to_string(bytes.size()) + " bytes, expected 16");
  }
  std::memcpy(id.bytes.data(), bytes.data(), id.bytes.size());
  return id;
}

struct JournalDatabase::Statements {
  explicit Statements(Database& database)
      : begin(database, "BEGIN IMMEDIATE"),
        commit(database, "COMMIT"),
        meta(database,
             "UPDATE meta SET next_seq = ?2, commits = ?3, time_ms = ?4, boot = ?5, uptime_ms = ?6, "
             "crc = row_crc(id, term, ?2, ?3, ?4, ?5, ?6) WHERE term = ?1"),
        accept(database,
               "INSERT INTO jobs VALUES(?1, ?2, ?3, ?4, ?5, 0, 0, 0, 0, row_crc(?1, 0, 0, 0, 0), "
               "row_crc(?1, ?2, ?3, ?4, ?5, ?6), ?6)"),
        lease(database,
              "UPDATE jobs SET lease_term = ?2, lease = ?3, attempts = ?4, "
              "lease_crc = row_crc(?1, ?4, crashes, ?2, ?3) WHERE seq = ?1"),
        adopt(database,
              "UPDATE jobs SET attempts = ?2, crashes = ?3, lease_crc = row_crc(?1, ?2, ?3, lease_term, lease) "
              "WHERE seq = ?1"),
        losses(database, "SELECT reasons FROM losses WHERE seq = ?"),
        lose(database,
             "INSERT INTO losses SELECT ?1, row_crc(?1, ?2), ?2 WHERE EXISTS(SELECT 1 FROM jobs WHERE seq = ?1) "
             "ON CONFLICT(seq) DO UPDATE SET crc = excluded.crc, reasons = excluded.reasons"),
        progress(database,
                 "INSERT INTO progress SELECT ?1, row_crc(?1, ?2), ?2 WHERE EXISTS(SELECT 1 FROM jobs WHERE seq = ?1) "
                 "ON CONFLICT(seq) DO UPDATE SET crc = excluded.crc, ids = excluded.ids"),
        spec(database, "SELECT spec FROM jobs WHERE seq = ?"),
        erase_job(database,
                  "DELETE FROM jobs WHERE seq = ?1 AND id = ?2 AND (?4 = 0 OR (lease_term = ?3 AND lease = ?4))"),
        is_open(database, "SELECT 1 FROM jobs WHERE seq = ? AND id = ?"),
        erase_progress(database, "DELETE FROM progress WHERE seq = ?"),
        erase_losses(database, "DELETE FROM losses WHERE seq = ?"),
        finish(database,
               "INSERT INTO results VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, "
               "row_crc(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12), ?11, ?12)"),
        find(database, std::string("SELECT crc = ") + kResultCrc +
                           ", result, seq, accepted_wall_ms, sha256, spec, state FROM results "
                           "WHERE id = ? AND expires_at_ms > ? ORDER BY seq DESC LIMIT 1"),
        row(database, std::string("SELECT crc = ") + kResultCrc +
                          ", seq, id, state, expires_at_ms, accepted_wall_ms, tenant, grp, model, key, sha256, "
                          "result FROM results WHERE seq = ?"),
        erase_result(database, "DELETE FROM results WHERE seq = ?"),
        erase_dead(database, "DELETE FROM results WHERE seq = ?1 AND id = ?2 AND state = ?3"),
        has_expired(database, "SELECT 1 FROM results WHERE expires_at_ms <= ? LIMIT 1"),
        purge(database,
              "DELETE FROM results WHERE seq IN "
              "(SELECT seq FROM results WHERE expires_at_ms <= ? ORDER BY expires_at_ms LIMIT ?)"),
        set_mode(database,
                 "INSERT INTO modes VALUES(?1, ?2, ?3, row_crc(?1, ?2, ?3)) "
                 "ON CONFLICT(scope, name) DO UPDATE SET mode = excluded.mode, crc = excluded.crc"),
        erase_mode(database, "DELETE FROM modes WHERE scope = ? AND name = ?") {}

  Statement begin, commit, meta, accept, lease, adopt, losses, lose, progress, spec, erase_job, is_open, erase_progress,
      erase_losses, finish, find, row, erase_result, erase_dead, has_expired, purge, set_mode, erase_mode;
};

// A transaction. Each one checks that the term in the file is still ours, since a second scheduler that got past the
// locks would have raised it.
class JournalDatabase::Transaction {
 public:
  explicit Transaction(JournalDatabase& journal) : journal_(journal), next_seq_before_(journal.next_seq_) {
    journal_.statements_->begin.run();
  }
  ~Transaction() {
    if (is_done_) return;
    journal_.next_seq_ = next_seq_before_;
    // SQLite may have rolled back by itself. If the rollback fails, the next transaction fails in the same way.
    if (journal_.database_.is_in_transaction()) {
      sqlite3_exec(journal_.database_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
    }
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  void commit() {
    Statements& sql = *journal_.statements_;
    sql.meta.bind(1, static_cast<int64_t>(journal_.term_)).bind(2, journal_.next_seq_);
    const LastingTime::Mark mark = journal_.time_->mark(journal_.now_);
    sql.meta.bind(3, static_cast<int64_t>(journal_.commits_ + 1));
    sql.meta.bind(4, mark.time_ms).bind_text(5, mark.boot).bind(6, mark.uptime_ms).run();
    if (journal_.database_.changes() != 1) {
      throw Error("journal " + journal_.database_.path() + ": another scheduler took over this journal (our term is " +
                  std::to_string(journal_.term_) + ", the file has " +
                  std::to_string(journal_.database_.query_number("SELECT term FROM meta")) + "): this one stops");
    }
    sql.commit.run();
    is_done_ = true;
    ++journal_.commits_;
    journal_.write_commit_record();
  }

 private:
  JournalDatabase& journal_;
  const int64_t next_seq_before_;
  bool is_done_ = false;
};

}  // namespace optserve::journal
