#include "journal/replica/replica.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/program.h"

namespace optserve::journal {
namespace {

constexpr size_t kDatabaseHeaderBytes = 100;  // has counters that change whenever another program writes to the file

}  // namespace

bool are_related(const JournalPosition& a, const JournalPosition& b) {
  return a.journal.substr(0, 8) == b.journal.substr(0, 8);
}

void Replica::check_owner(const JournalPosition& found, const JournalPosition& now) const {
  if (!are_related(found, now)) {
    throw ConfigurationError(
        "the folder of --journal-replica holds the replica of another journal. If that journal is lost, restore it "
        "(optserve journal restore); else name another folder, or empty this one");
  }
  if (found.term <= now.term) return;
  throw ConfigurationError("the folder of --journal-replica holds a later state of this journal (term " +
                           std::to_string(found.term) + ", this file has " + std::to_string(now.term) +
                           "): this file is an old copy. Restore the replica (optserve journal restore), or name "
                           "another folder");
}

void Replica::attach(const JournalPosition& now, uint64_t commits_found) {
  const std::optional<FoundReplica> found = find_replica(disk_);
  if (!found) return;
  const JournalPosition& last = found->last.position;
  check_owner(last, now);
  if (!found->last.is_complete || last.journal != now.journal) return;
  const bool is_in_log = !last.wal_salt.empty() && last.wal_salt == now.wal_salt && last.wal_frames <= now.wal_frames;
  if (!is_in_log && last.commits != commits_found) return;
  if (!folder_.resume(*found)) return;
  collected_ = shipped_ = last;
  if (!is_in_log) {
    // The last process ended in order. Its file must be as it left it: another program, such as one that made the file
    // smaller, moves pages without a commit of ours.
    const std::string file = journal_.read_database(0, kDatabaseHeaderBytes);
    if (file != folder_.first_page().substr(0, kDatabaseHeaderBytes)) return folder_.close();
    collected_.wal_salt.clear();
    collected_.wal_frames = 0;
  }
  phase_ = Phase::kShipping;
}

void Replica::begin_seed(const JournalPosition& now) {
  lose();
  folder_.begin();
  phase_ = Phase::kSeeding;
  collected_ = {};
  collect(now);
  collected_ = now;
  copied_ = 0;
  to_copy_ = journal_.database_bytes();
}

void Replica::copy_some() {
  if (copied_ < to_copy_) {
    const auto size = static_cast<size_t>(std::min(limits_.copy_bytes, to_copy_ - copied_));
    const std::string bytes = journal_.read_database(copied_, size);
    folder_.write_pages(bytes, copied_);
    copied_ += static_cast<int64_t>(bytes.size());
    if (bytes.size() < size) to_copy_ = copied_;
    return;
  }
  folder_.sync_pages();
  folder_.append(take_waiting(true));
  shipped_ = collected_;
  phase_ = Phase::kShipping;
}

void Replica::collect(const JournalPosition& to) {
  if (phase_ == Phase::kLost || to.commits == collected_.commits) return;
  if (to.wal_frames > 0) {
    const uint64_t from = to.wal_salt == collected_.wal_salt ? collected_.wal_frames : 0;
    try {
      if (const uint64_t size = journal_.read_log(to, from, waiting_); size > 0) waiting_database_pages_ = size;
    } catch (const Error&) {
      lose();  // pages of half a commit may wait
      throw;
    }
  }
  collected_ = to;
  if (!is_open() && waiting_.size() * kReplicaPageBytes > limits_.waiting_bytes) lose();
}

Segment Replica::take_waiting(bool is_complete) {
  Segment segment;
  segment.position = collected_;
  segment.is_complete = is_complete;
  segment.database_pages = std::exchange(waiting_database_pages_, 0);
  segment.pages = std::exchange(waiting_, {});
  return segment;
}

void Replica::ship() {
  if (!is_open() || phase_ == Phase::kLost || collected_.commits == shipped_.commits) return;
  Segment segment = take_waiting(phase_ == Phase::kShipping);
  try {
    folder_.append(segment);
  } catch (...) {
    waiting_ = std::move(segment.pages);
    waiting_database_pages_ = segment.database_pages;
    throw;
  }
  shipped_ = collected_;
  if (phase_ == Phase::kShipping && folder_.log_bytes() > limits_.log_bytes) folder_.fold();
}

void Replica::lose() {
  if (phase_ == Phase::kSeeding) {
    try {
      folder_.discard();
    } catch (const Error& error) {
      log_debug("journal_replica_not_removed", {{"error", error.what()}});
    }
  }
  folder_.close();
  phase_ = Phase::kLost;
  waiting_.clear();
  waiting_database_pages_ = 0;
  shipped_ = {};
}

void Replica::failed(bool at_sync) {
  // What a failed sync was to write may be lost although it can still be read, so nothing may be built on it.
  if (phase_ == Phase::kShipping && !at_sync) return folder_.close();
  lose();
}

void Replica::reopen() {
  if (phase_ != Phase::kShipping) return;
  const std::optional<FoundReplica> found = find_replica(disk_);
  const bool is_ours = found && found->last.is_complete && found->last.position.journal == shipped_.journal &&
                       found->last.position.commits == shipped_.commits;
  if (!is_ours || !folder_.resume(*found)) lose();
}

}  // namespace optserve::journal
