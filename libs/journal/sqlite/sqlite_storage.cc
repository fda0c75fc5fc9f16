// The journal in one SQLite file: its disk space, its checkpoints and its backups.
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <optional>
#include <utility>

#include "base/log.h"
#include "journal/journal_backup.h"
#include "journal/journal_database.h"
#include "journal/journal_storage.h"
#include "journal/replica/replica_shipper.h"
#include "journal/sqlite/disk_reserve.h"

namespace optserve::journal {
namespace {

constexpr milliseconds kRoomInterval{200};     // between checks for room on a full disk
constexpr milliseconds kRecordInterval{1000};  // between syncs of the commit record
constexpr milliseconds kOfferInterval{200};    // between positions of which the replica is told
constexpr seconds kLastShip{5};                // for the replica to get the last commits at an orderly end

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
    if (!options.replica_folder.empty()) start_replica();
  }

  bool commit(std::span<const Record> records) override {
    return write([&] { database_->commit(records, clock_.now()); });
  }
  bool merge(const MergeStep& step) override {
    return write([&] { database_->merge(step, clock_.now()); });
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
    const int64_t bytes = database_->wal_bytes();
    // The replica's thread reads the log in a moment, unless its folder hangs.
    if (bytes >= options_.checkpoint_bytes && prepare_checkpoint(bytes >= 2 * options_.checkpoint_bytes)) {
      database_->checkpoint();
    }
  }
  void rest() override {
    if (database_->wal_bytes() > 0 && prepare_checkpoint(false)) database_->checkpoint();
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
    if (shipper_ != nullptr) keep_replica_up(now);
    backups_.step(now, clock_.wall_ms(), full_, answers);
  }
  void close() override {
    if (shipper_ != nullptr) {
      offer_position();
      if (!shipper_->finish(kLastShip)) log_warn("journal_replica_incomplete", {{"folder", options_.replica_folder}});
    }
    prepare_checkpoint(true);
    database_->checkpoint();
  }
  bool needs_turns() const override { return backups_.is_copying(); }
  bool expects_turns() const override {
    return backups_.is_under_way() || (shipper_ != nullptr && database_->position().commits != offered_commits_);
  }

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
    if (shipper_ != nullptr) state.replica = shipper_->state();
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

  // If the disk is full, the reserve makes room for one more try.
  bool write(const std::function<void()>& commit) {
    const bool had_reserve = !full_;
    return with_room(commit) || (had_reserve && with_room(commit));
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
    prepare_checkpoint(true);
    database_->checkpoint(JournalDatabase::Checkpoint::kTruncate);
    return false;
  }

  void start_replica() {
    struct stat journal {
    }, replica{};
    if (stat(options_.path.c_str(), &journal) == 0 && stat(options_.replica_folder.c_str(), &replica) == 0 &&
        journal.st_dev == replica.st_dev) {
      log_warn("journal_replica_on_same_disk",
               {{"meaning", "the loss of this disk loses the journal and its replica"}});
    }
    reader_ = std::make_unique<JournalReader>(options_.path);
    JournalPosition position = database_->position();
    position.wall_ms = clock_.wall_ms();
    offered_commits_ = position.commits;
    shipper_ = std::make_unique<ReplicaShipper>(options_, clock_, *reader_, position, database_->commits_found());
  }

  void offer_position() {
    JournalPosition position = database_->position();
    position.wall_ms = clock_.wall_ms();
    offered_commits_ = position.commits;
    shipper_->offer(position, oldest_commit_.value_or(clock_.now()));
    oldest_commit_.reset();
  }

  void keep_replica_up(Instant now) {
    const bool has_news = database_->position().commits != offered_commits_;
    if (has_news && !oldest_commit_) oldest_commit_ = now;
    if (shipper_->wants_offer() || (has_news && now - *oldest_commit_ >= kOfferInterval)) offer_position();
  }

  // Before a checkpoint, after which the log may be overwritten. False if it must wait until the replica's thread has
  // read the log; if it cannot wait, the replica is made anew.
  bool prepare_checkpoint(bool must) {
    if (shipper_ == nullptr) return true;
    const uint64_t commits = database_->position().commits;
    if (shipper_->may_overwrite(commits)) return true;
    if (commits != offered_commits_) offer_position();
    if (must) shipper_->lose();
    return must;
  }

  const JournalOptions options_;
  const Clock& clock_;
  std::atomic<bool> full_{false};
  DiskReserve reserve_;
  std::unique_ptr<JournalReader> reader_;  // outlives the connection
  std::unique_ptr<JournalDatabase> database_;
  Backups backups_;
  Instant next_record_sync_{};
  Instant next_room_check_{};
  uint64_t offered_commits_ = 0;          // to the replica
  std::optional<Instant> oldest_commit_;  // that was not offered
  std::unique_ptr<ReplicaShipper> shipper_;
};

}  // namespace

std::unique_ptr<JournalStorage> open_sqlite_storage(const JournalOptions& options, const Clock& clock,
                                                    Recovery& recovery) {
  return std::make_unique<SqliteStorage>(options, clock, recovery);
}

}  // namespace optserve::journal
