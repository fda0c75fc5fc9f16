// The interface of the journal's thread to a kind of database. It is used by that thread alone, and what a function
// throws is final, unless the comment of a function says otherwise.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/lasting_time.h"
#include "journal/job_store.h"
#include "journal/journal.h"

namespace optserve::journal {

// What is on disk is not what was written. The remedy is to restore a backup.
class DamagedError : public Error {
 public:
  using Error::Error;
};

// A part of the ended jobs, in order. A call looks at a limited number of them, so that commits need not wait long.
template <class Item>
struct EndedPart {
  std::vector<Item> items;
  uint64_t last = 0;  // the order up to which the call has looked
  bool is_last = false;
};

// What a merge of two journals changes besides the records (merge/journal_merge.h).
struct MergeStep {
  // An open job that came with what it had used up elsewhere.
  struct Adopted {
    uint64_t order = 0;
    int32_t attempts = 0, crashes = 0;
  };
  // An open or ended job that is in the other journal.
  struct Left {
    uint64_t order = 0;
    JobId job;
  };
  std::vector<Record> records{};
  std::vector<Adopted> adopted{};  // take effect after the records
  std::vector<Left> left{};
};

class JournalStorage {
 public:
  virtual ~JournalStorage() = default;

  // One transaction; on return the records are on disk. False if there is no room; then nothing was changed, and the
  // same records may be given again.
  virtual bool commit(std::span<const Record> records) = 0;
  virtual bool merge(const MergeStep& step) = 0;  // like commit()
  virtual uint64_t fenced() const = 0;            // ignored results, whose token was not that of the job's lease

  // Questions throw DamagedError for a row that does not match its checksum; other rows are not affected.
  virtual ResultFound find_result(const JobId& job) = 0;
  virtual DeadFound find_dead(const JobId& job) = 0;
  virtual EndedPart<protocol::JobSummary> list_ended(const ListEnded& question, uint32_t window) = 0;
  // nullopt if there is no room for it.
  virtual std::optional<EndedPart<KnownKey>> purge_ended(const protocol::JobFilter& filter, uint64_t after,
                                                         uint32_t window) = 0;
  // Removes up to `limit` expired results; returns how many.
  virtual int64_t purge_expired(int64_t limit) = 0;
  // The answer comes with a later keep_up().
  virtual void back_up(uint64_t request) = 0;

  virtual void after_commit() = 0;                         // work that must not wait for an idle moment
  virtual void rest() = 0;                                 // work for an idle moment
  virtual void keep_up(std::vector<Answer>& answers) = 0;  // once per turn: work that has its own schedule
  virtual void close() = 0;                                // ends in order
  virtual bool needs_turns() const = 0;                    // keep_up() has work that should not wait
  virtual bool expects_turns() const = 0;                  // keep_up() will have work soon

  virtual bool is_asked_to_hand_over() const = 0;

  // May be called by any thread.
  virtual bool is_full() const = 0;
  virtual bool is_reachable() const = 0;

  // The state for metrics. Called by the journal's thread.
  virtual JournalState state() const = 0;

  // The journal's clock, which continues from what the start found and does not change afterwards.
  virtual const LastingTime& time() const = 0;
};

// Throw Error as Journal::open() does.
std::unique_ptr<JournalStorage> open_sqlite_storage(const JournalOptions& options, const Clock& clock,
                                                    Recovery& recovery);
// Throws Error in a build without libpq.
std::unique_ptr<JournalStorage> open_postgres_storage(const JournalOptions& options, const Clock& clock,
                                                      Recovery& recovery);

}  // namespace optserve::journal
