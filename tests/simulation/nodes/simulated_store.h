// A journal without a disk: records become durable in group commits that take time; a crash loses what was not
// committed, and a commit in progress is kept or lost as a whole. Reads see every record before them.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/lasting_time.h"
#include "journal/job_store.h"
#include "simulation/environment.h"

namespace optserve::simulation {

class Ledger;

// What is on the disk.
struct OnDisk {
  struct Open {
    journal::Accepted accepted;  // with encoded_spec only
    int32_t attempts = 0;
    int32_t crashes = 0;
    LeaseToken lease;  // number 0: none
    std::vector<std::string> losses;
    std::vector<TokenId> progress;
    LeaseToken highest_lease;
    int32_t counted = 0;  // the highest attempt that was counted
  };
  std::map<uint64_t, Open> open;  // by order
  std::unordered_map<JobId, uint64_t> orders;
  std::unordered_map<JobId, journal::Finished> ended;
  std::multimap<int64_t, JobId> expiries;
  uint64_t term = 0;
  uint64_t next_order = 1;
  LastingTime::Mark mark{};  // of the last commit
  std::vector<journal::ModeSet> modes;

  const Open* find_open(const JobId& job) const {
    const auto found = orders.find(job);
    return found == orders.end() ? nullptr : &open.at(found->second);
  }
  const journal::Finished* find_ended(const JobId& job) const {
    const auto found = ended.find(job);
    return found == ended.end() ? nullptr : &found->second;
  }
};

class SimulatedStore final : public journal::JobStore {
 public:
  // Who hears what the disk did.
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void on_durable() = 0;  // durable() has moved
    virtual void on_answers_ready() = 0;
    virtual Instant local_now() const = 0;
    virtual int64_t wall_offset_ms() const = 0;  // by which the wall clock has moved since the beginning
  };
  SimulatedStore(Environment& environment, Ledger& ledger) : env_(environment), ledger_(ledger) {}
  void set_listener(Listener& listener) { listener_ = &listener; }

  uint64_t append(journal::Record record) override;
  uint64_t durable() const override;
  bool is_durable() const override { return true; }
  int64_t time_ms(Instant now) const override { return time_.ms(now); }
  bool is_congested() const override { return pending_.size() > 4'096; }
  bool is_full() const override { return env_.now() < full_until_; }
  void ask(uint64_t request, journal::Question question) override;
  std::vector<journal::Answer> poll_answers() override { return std::exchange(answers_, {}); }

  // The scheduler's process ends, and the next one reads the disk.
  void crash();
  journal::Recovery recover();
  // The next process runs on a machine that was started anew, or on another one.
  void reboot() { ++boot_; }
  // Everything that was appended reaches the disk: an orderly end.
  void commit_all();

  void be_slow(Instant until) { slow_until_ = until; }
  void be_full(Instant until) { full_until_ = until; }
  const OnDisk& disk() const { return disk_; }
  bool is_idle() const { return pending_.empty(); }
  bool has_answers() const { return !answers_.empty(); }  // that the scheduler has not taken

 private:
  struct Asked {
    uint64_t request = 0;
    uint64_t after = 0;  // records that it sees
    journal::Question question;
  };

  void begin_commit();
  void end_commit(uint64_t life);
  void write(journal::Record record);
  void answer_questions(uint64_t life);
  using Body = decltype(journal::Answer::body);
  int64_t now_ms() const;
  bool is_expired(const journal::Finished& ended) const { return ended.expires_at_ms <= now_ms(); }
  Body answer(const journal::FindResult& question) const;
  Body answer(const journal::FindDead& question) const;
  Body answer(const journal::PurgeEnded& question);
  Body answer(const journal::ListEnded& question) const;
  Body answer(const journal::BackUp& question) const;
  void purge();
  void forget_ended(const JobId& job);
  void apply(journal::Accepted& record);
  void apply(journal::Leased& record);
  void apply(journal::Progress& record);
  void apply(journal::Finished& record);
  void apply(journal::Requeued& record);
  void apply(journal::ModeSet& record);

  Environment& env_;
  Ledger& ledger_;
  Listener* listener_ = nullptr;
  OnDisk disk_;
  std::deque<journal::Record> pending_;  // the first `committing_` are being written
  size_t committing_ = 0;
  bool is_committing_ = false;
  uint64_t appended_ = 0, durable_ = 0;
  std::vector<Asked> questions_;
  std::vector<journal::Answer> answers_;
  uint64_t life_ = 0;
  Instant slow_until_{}, full_until_{};
  uint64_t boot_ = 0;
  LastingTime time_{{}, "", Instant{}};
};

}  // namespace optserve::simulation
