// A scheduler's right to write to a queue: a session with the database that holds the queue's lock, and the term under
// which its transactions are accepted. If two schedulers believe that they hold the lock (because a server was
// replaced, or a session has ended without the scheduler knowing), the term decides.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "base/lasting_time.h"
#include "journal/journal.h"
#include "journal/postgres/connection.h"

namespace optserve::journal {

class Session {
 public:
  // Waits until this process leads, for as long as JournalOptions::stand_by allows, and raises the term.
  Session(const JournalOptions& options, const Clock& clock);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Connection& connection() { return *connection_; }
  uint64_t term() const { return term_; }
  uint64_t next_order() const { return next_order_; }
  const LastingTime& time() const { return *time_; }
  // True if the previous leader ended while it worked, so that the jobs it worked on may have crashed it. False if it
  // ended in order, was paused or cut off, or if its server was stopped.
  bool was_sudden() const { return was_sudden_; }

  uint64_t commits() const { return commits_; }  // commits that are known to be on disk
  void count_commit() { ++commits_; }

  // To be called when the connection broke: takes the lead again over a new connection, within `outage_max`. By then
  // the server has ended the old session, so what was in progress is decided: true if commit number commits() + 1 is in
  // the database. Throws Error if another scheduler leads, if commits are missing, or if there is no database in time.
  bool resume();
  // Shows the standbys that this process lives, if it is time to do so. Throws as resume() does.
  void beat();
  // To be called when the fence rejected a transaction: throws Error that says what is in the database.
  [[noreturn]] void fail_fenced();
  // Ends in order, so that a standby takes over at once.
  void leave();

  // May be called by any thread.
  bool is_reachable() const { return is_reachable_.load(std::memory_order_relaxed); }
  bool is_asked_to_hand_over() const { return hand_over_.load(std::memory_order_relaxed); }

 private:
  // A session with the server. Process ids are reused, so its start time is part of its identity.
  struct Backend {
    int64_t pid = 0;
    std::string started{};
  };
  // The leader, according to the database.
  struct Leader {
    uint64_t term = 0, commits = 0;
    int64_t beat = 0, pid = 0;  // pid 0: it ended in order
    std::string server, holder;
    Backend session;  // the session that holds the lock; pid 0: none
    bool is_busy = false;
    bool is_same_moment(const Leader& other) const {
      return term == other.term && commits == other.commits && beat == other.beat;
    }
  };
  struct Watch;

  bool connect(std::string& why);
  bool try_to_lead(Watch& watch, std::string& why);
  Leader read_leader();
  bool take_lock();
  void release_lock();
  void end_session(const Backend& session);
  void raise_term(const Leader& before);
  void note_session();
  bool look();

  const JournalOptions options_;
  const Clock& clock_;        // for the journal's time
  const SystemClock system_;  // for waits
  std::unique_ptr<Connection> connection_;
  uint64_t term_ = 0, next_order_ = 1, commits_ = 0;
  uint64_t seen_term_ = 0, seen_commits_ = 0;  // while another process led
  std::optional<LastingTime> time_;
  bool was_sudden_ = false, has_paused_ = false;
  Backend session_;  // the current session
  Instant next_beat_{};
  std::atomic<bool> is_reachable_{true};
  std::atomic<bool> hand_over_{false};
};

}  // namespace optserve::journal
