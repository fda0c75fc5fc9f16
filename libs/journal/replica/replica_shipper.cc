#include "journal/replica/replica_shipper.h"

#include <algorithm>

#include "base/log.h"

namespace optserve::journal {
namespace {

constexpr milliseconds kFirstPause{1'000};
constexpr milliseconds kLongestPause{30'000};
constexpr milliseconds kIdle{1'000};
constexpr size_t kOffersMax = 4'096;  // of half an hour; while there are more, the oldest tells the delay all the same

}  // namespace

ReplicaShipper::ReplicaShipper(const JournalOptions& options, const Clock& clock, const JournalReader& journal,
                               const JournalPosition& now, uint64_t commits_found)
    : folder_(options.replica_folder),
      interval_(options.replica_interval),
      clock_(clock),
      disk_(open_replica_disk(folder_, ReplicaUse::kWrite)),
      replica_(*disk_, journal, {}) {
  replica_.attach(now, commits_found);
  is_protecting_ = true;  // the position of the first offer is fit to be copied from
  is_seeding_ = replica_.must_seed();
  offers_.push_back({now.commits, clock.now()});
  offered_commits_ = now.commits;
  wanted_ = now;
  log_info(is_seeding_ ? "journal_replica_begins" : "journal_replica_continues", {{"folder", folder_}});
  thread_ = std::thread([this] { run(); });
}

ReplicaShipper::~ReplicaShipper() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void ReplicaShipper::offer(const JournalPosition& position, Instant oldest) {
  {
    const std::lock_guard lock(mutex_);
    wanted_ = position;
    wants_offer_ = false;
    if (position.commits == std::exchange(offered_commits_, position.commits)) {
      // A position to begin a copy with.
    } else if (offers_.size() < kOffersMax) {
      offers_.push_back({position.commits, oldest});
    } else {
      offers_.back().commits = position.commits;
    }
  }
  wake_.notify_one();
}

bool ReplicaShipper::wants_offer() const {
  const std::lock_guard lock(mutex_);
  return wants_offer_;
}

bool ReplicaShipper::may_overwrite(uint64_t commits) const {
  const std::lock_guard lock(mutex_);
  return !is_protecting_ || collected_commits_ >= commits;
}

void ReplicaShipper::lose() {
  const std::lock_guard lock(mutex_);
  ++epoch_;
  is_protecting_ = false;
  wanted_.reset();
}

bool ReplicaShipper::finish(Duration patience) {
  std::unique_lock lock(mutex_);
  is_finishing_ = true;
  wake_.notify_one();
  const auto is_done = [&] { return offers_.empty(); };
  done_.wait_for(lock, patience, [&] { return is_done() || is_failing_ || wants_offer_; });
  return is_done();
}

ReplicaState ReplicaShipper::state() const {
  const std::lock_guard lock(mutex_);
  ReplicaState state;
  state.is_failing = is_failing_;
  state.is_seeding = is_seeding_;
  if (!offers_.empty()) state.behind = clock_.now() - offers_.front().oldest;
  return state;
}

// What the thread has to wait for: the next piece of work, or the next try.
Duration ReplicaShipper::patience() const {
  if (replica_.is_seeding()) return Duration::zero();
  if (offers_.empty() || wants_offer_) return kIdle;
  const Duration left = (pause_ > Duration::zero() ? next_try_ : next_ship_) - clock_.now();
  return std::clamp<Duration>(left, milliseconds(1), kIdle);
}

void ReplicaShipper::run() {
  for (;;) {
    std::optional<JournalPosition> wanted;
    bool is_urgent = false;
    {
      std::unique_lock lock(mutex_);
      const auto has_work = [&] {
        const bool must_hurry = is_finishing_ && !offers_.empty() && !is_failing_ && !wants_offer_;
        return is_stopping_ || wanted_ || must_hurry;
      };
      if (const Duration wait = patience(); wait > Duration::zero()) wake_.wait_for(lock, wait, has_work);
      if (is_stopping_) return;
      wanted = std::exchange(wanted_, std::nullopt);
      is_urgent = is_finishing_;
    }
    try {
      turn(wanted, is_urgent);
    } catch (const SyncError& error) {
      fail(error.what(), true);
    } catch (const std::exception& error) {
      fail(error.what(), false);
    }
  }
}

void ReplicaShipper::turn(const std::optional<JournalPosition>& wanted, bool is_urgent) {
  const Instant now = clock_.now();
  const bool may_try = now >= next_try_;
  if (!is_overtaken() && wanted && (may_try || !replica_.must_seed())) take_in(*wanted);
  if (replica_.must_seed()) {
    if (may_try) ask_for_seed();
    return report();
  }
  if (!replica_.is_open()) {
    if (!may_try) return;
    replica_.reopen();
  }
  if (now >= next_ship_ || is_urgent) {
    replica_.ship();
    next_ship_ = now + interval_;
  }
  // Its last step makes the replica complete and reads nothing, so that everything that was read is checked here.
  if (replica_.is_seeding() && !is_overtaken()) replica_.copy_some();
  report();
}

void ReplicaShipper::take_in(const JournalPosition& wanted) {
  if (replica_.must_seed()) {
    replica_.begin_seed(wanted);
  } else {
    replica_.collect(wanted);
  }
  if (is_overtaken()) return;
  const std::lock_guard lock(mutex_);
  if (epoch_ == seen_epoch_) collected_commits_ = wanted.commits;
  if (replica_.must_seed()) is_protecting_ = false;  // too much waited for a folder that cannot be written
}

bool ReplicaShipper::is_overtaken() {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(seen_epoch_, epoch_) == epoch_) return false;
  }
  replica_.lose();
  return true;
}

// From here on nothing is overwritten before it is read, so the next position that is offered is fit to begin with.
void ReplicaShipper::ask_for_seed() {
  const std::lock_guard lock(mutex_);
  if (is_protecting_ && (wants_offer_ || wanted_)) return;
  is_protecting_ = true;
  wants_offer_ = true;
  collected_commits_ = 0;
  wanted_.reset();
}

void ReplicaShipper::report() {
  const bool is_shipping = !replica_.must_seed() && !replica_.is_seeding();
  const bool is_well = is_shipping && replica_.is_open();
  const uint64_t shipped = replica_.shipped_commits();
  bool was_seeding = false;
  bool was_failing = false;
  {
    const std::lock_guard lock(mutex_);
    was_seeding = std::exchange(is_seeding_, !is_shipping);
    if (is_well) was_failing = std::exchange(is_failing_, false);
    while (!offers_.empty() && offers_.front().commits <= shipped) offers_.pop_front();
  }
  done_.notify_all();
  if (is_well) pause_ = Duration::zero();
  if (was_failing) log_info("journal_replica_works_again", {{"folder", folder_}});
  if (was_seeding && is_shipping) log_info("journal_replica_complete", {{"folder", folder_}});
  if (!was_seeding && !is_shipping) log_warn("journal_replica_begins_again", {{"folder", folder_}});
}

void ReplicaShipper::fail(const std::string& why, bool at_sync) {
  replica_.failed(at_sync);
  pause_ = std::clamp<Duration>(2 * pause_, kFirstPause, kLongestPause);
  next_try_ = clock_.now() + pause_;
  bool was_failing = false;
  {
    const std::lock_guard lock(mutex_);
    was_failing = std::exchange(is_failing_, true);
    if (replica_.must_seed()) is_protecting_ = wants_offer_ = false;
    is_seeding_ = replica_.must_seed();
  }
  done_.notify_all();
  if (was_failing) return;
  log_error("journal_replica_failed",
            {{"folder", folder_}, {"error", why}, {"meaning", "jobs are accepted, but not copied; it is tried again"}});
}

}  // namespace optserve::journal
