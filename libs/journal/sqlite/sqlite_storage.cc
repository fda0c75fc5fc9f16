// The journal in one SQLite file: its disk space, its checkpoints and its backups.
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <utility>

#include "base/log.h"
#include "journal/journal_backup.h"
#include "journal/journal_database.h"
#include "journal/journal_storage.h"
#include "journal/sqlite/disk_reserve.h"

namespace optserve::journal {
namespace {

constexpr milliseconds kRoomInterval{200};     // between checks for room on a full disk
constexpr milliseconds kRecordInterval{1000};  // between syncs of the commit record

int64_t size_of_file(const std::string& path) {
  std::error_code failure;
  const auto bytes = std::filesystem::file_size(path, failure);
  return failure ? 0 : static_cast<int64_t>(bytes);
}

int64_t latest_backup_wall_s(const std::string& folder) {
  struct stat about {};
  const std::string latest = latest_backup(folder);
  return !latest.empty() && stat(latest.c_str(), &about) == 0 ? about.st_mtime : 0;
}

class SqliteStorage final : public JournalStorage {
 public:
  SqliteStorage(const JournalOptions& options, const Clock& clock, Recovery& recovery)
      : options_(options),
        clock_(clock),
        reserve_(options.path, options.reserve_bytes),
        database_(open_database(recovery)),
        backups_(options, clock.now(), database_->connection()) {
    full_ = full_ || !reserve_.fill();
  }

  bool commit(std::span<const Record> records) override {
    const auto write = [&] { database_->commit(records, clock_.now()); };
    const bool had_reserve = !full_;
    return with_room(write) || (had_reserve && with_room(write));
  }
  uint64_t fenced() const override { return database_->fenced(); }

  ResultFound find_result(const JobId& job) override { return database_->find_result(job, clock_.now()); }
  DeadFound find_dead(const JobId& job) override { return database_->find_dead(job, clock_.now()); }
  EndedPart<protocol::JobSummary> list_ended(const ListEnded& question, uint32_t window) override {
    return database_->list_ended(question, window, clock_.now());
  }
  std::optional<EndedPart<KnownKey>> purge_ended(const protocol::JobFilter& filter, uint64_t after,
                                                 uint32_t window) override {
    EndedPart<KnownKey> part;
    if (!with_room([&] { part = database_->purge_ended(filter, after, window, clock_.now()); })) return std::nullopt;
    return part;
  }
  int64_t purge_expired(int64_t limit) override {
    int64_t removed = 0;
    with_room([&] { removed = database_->purge_expired(clock_.now(), limit); });
    return removed;
  }
  void back_up(uint64_t request) override { backups_.ask(request); }

  void after_commit() override {
    if (database_->wal_bytes() >= options_.checkpoint_bytes) database_->checkpoint();
  }
  void rest() override {
    if (database_->wal_bytes() > 0) database_->checkpoint();
  }
  void keep_up(std::vector<Answer>& answers) override {
    const Instant now = clock_.now();
    if (now >= next_record_sync_) {
      database_->sync_commit_record();
      next_record_sync_ = now + kRecordInterval;
    }
    if (full_ && now >= next_room_check_) {
      next_room_check_ = now + kRoomInterval;
      if (database_->has_room() && reserve_.has_room_for_it() && reserve_.fill()) {
        database_->lift_limit(false);
        full_ = false;
        log_info("journal_disk_has_room", {{"path", options_.path}});
      }
    }
    backups_.step(now, clock_.wall_ms(), full_, answers);
  }
  void close() override { database_->checkpoint(); }
  bool needs_turns() const override { return backups_.is_copying(); }
  bool expects_turns() const override { return backups_.is_under_way(); }

  bool is_full() const override { return full_.load(std::memory_order_relaxed); }
  bool is_reachable() const override { return true; }
  JournalState state() const override {
    JournalState state;
    state.bytes = size_of_file(options_.path);
    state.log_bytes = size_of_file(options_.path + "-wal");
    std::error_code unknown;
    const auto space = std::filesystem::space(std::filesystem::absolute(options_.path).parent_path(), unknown);
    if (!unknown) state.disk_free_bytes = static_cast<int64_t>(space.available);
    state.is_full = is_full();
    if (!options_.backup_folder.empty()) state.last_backup_wall_s = latest_backup_wall_s(options_.backup_folder);
    return state;
  }
  bool is_asked_to_hand_over() const override { return false; }
  const LastingTime& time() const override { return database_->time(); }

 private:
  // If the disk is full at the start, the space of the reserve is used.
  std::unique_ptr<JournalDatabase> open_database(Recovery& recovery) {
    try {
      return std::make_unique<JournalDatabase>(options_, clock_.now(), recovery);
    } catch (const SqliteError& error) {
      if (error.code() != SQLITE_FULL) throw;
    }
    reserve_.release();
    full_ = true;
    recovery = {};
    return std::make_unique<JournalDatabase>(options_, clock_.now(), recovery);
  }

  // False if the disk is full; then nothing was changed. Every other failure is final.
  bool with_room(const std::function<void()>& write) {
    try {
      write();
      return true;
    } catch (const SqliteError& error) {
      if (error.code() != SQLITE_FULL) throw;
    }
    if (!full_.exchange(true)) {
      log_error("journal_disk_full", {{"path", options_.path}, {"meaning", "no job is accepted until there is room"}});
      reserve_.release();
      database_->lift_limit(true);
    }
    // The log returns its space if its content still fits into the database.
    database_->checkpoint(JournalDatabase::Checkpoint::kTruncate);
    return false;
  }

  const JournalOptions options_;
  const Clock& clock_;
  std::atomic<bool> full_{false};
  DiskReserve reserve_;
  std::unique_ptr<JournalDatabase> database_;
  Backups backups_;
  Instant next_record_sync_{};
  Instant next_room_check_{};
};

}  // namespace

std::unique_ptr<JournalStorage> open_sqlite_storage(const JournalOptions& options, const Clock& clock,
                                                    Recovery& recovery) {
  return std::make_unique<SqliteStorage>(options, clock, recovery);
}

}  // namespace optserve::journal
