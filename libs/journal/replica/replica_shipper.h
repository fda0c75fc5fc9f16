// The thread that ships a journal to its replica. The journal's thread tells it how far the journal is and asks it
// before it lets SQLite overwrite the write-ahead log; it never waits for the replica's disk.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/clock.h"
#include "journal/journal.h"
#include "journal/replica/replica.h"

namespace optserve::journal {

class ReplicaShipper {
 public:
  // `now` is the position of the journal, and `commits_found` that at which it was found when it was opened. Throws as
  // Replica::attach() and open_replica_disk() do.
  ReplicaShipper(const JournalOptions& options, const Clock& clock, const JournalReader& journal,
                 const JournalPosition& now, uint64_t commits_found);
  ~ReplicaShipper();
  ReplicaShipper(const ReplicaShipper&) = delete;
  ReplicaShipper& operator=(const ReplicaShipper&) = delete;

  // Everything up to `position` is on the journal's disk; the oldest commit since the last call was made at `oldest`.
  void offer(const JournalPosition& position, Instant oldest);
  // The replica must be made anew and waits for an offer.
  bool wants_offer() const;
  // Whether the log up to `commits` may be overwritten. If not, it may soon be.
  bool may_overwrite(uint64_t commits) const;
  // The log is overwritten although may_overwrite() said no: the replica is made anew.
  void lose();
  // Waits, at most for `patience`, until the replica has everything that was offered. False if it does not.
  bool finish(Duration patience);

  ReplicaState state() const;

 private:
  struct Offer {
    uint64_t commits;
    Instant oldest;
  };
  void run();
  void turn(const std::optional<JournalPosition>& wanted, bool is_urgent);
  void take_in(const JournalPosition& wanted);
  bool is_overtaken();  // true: frames were overwritten too early since the last call, so the replica is lost
  void ask_for_seed();
  void report();
  void fail(const std::string& why, bool at_sync);
  Duration patience() const;

  const std::string folder_;
  const milliseconds interval_;
  const Clock& clock_;
  std::unique_ptr<ReplicaDisk> disk_;
  Replica replica_;  // used by the thread once it runs
  Instant next_ship_{};
  Instant next_try_{};
  Duration pause_{};  // before the next try; 0: the last one succeeded
  uint64_t seen_epoch_ = 0;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_, done_;
  std::optional<JournalPosition> wanted_;
  bool is_protecting_ = false;  // frames may not be overwritten before they are collected
  uint64_t collected_commits_ = 0;
  uint64_t epoch_ = 0;        // grows when the log was overwritten too early
  std::deque<Offer> offers_;  // not shipped yet
  uint64_t offered_commits_ = 0;
  bool wants_offer_ = false;
  bool is_failing_ = false;
  bool is_seeding_ = false;
  bool is_finishing_ = false;
  bool is_stopping_ = false;

  std::thread thread_;  // last, so that everything above exists when it starts
};

}  // namespace optserve::journal
