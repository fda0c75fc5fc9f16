// How jobs end. The first end is the only one: it is recorded before anyone is told, and takes the job out of every
// table.
#pragma once

#include <optional>
#include <string>

#include "scheduler/leases/leases.h"
#include "scheduler/scheduler_tables.h"

namespace optserve::scheduler {

class Endings {
 public:
  Endings(SchedulerTables& tables, Leases& leases) : tables_(tables), leases_(leases) {}

  // It succeeded, with the output that it has. `message`: of a conversion, what was written.
  void succeed(Job& job, std::string message, Instant now);
  // It cannot be carried out, and another attempt would end the same way.
  void fail(Job& job, const Refusal& why, Instant now);
  void cancel(Job& job, std::string why, Instant now);
  // It has no attempts left.
  void give_up(Job& job, std::string why, Instant now);
  // Ends the jobs whose time has run out.
  void expire_due(Instant now);

  int64_t succeeded() const { return succeeded_; }
  int64_t failed() const { return failed_; }  // or dead
  int64_t cancelled() const { return cancelled_; }
  int64_t expired() const { return expired_; }

 private:
  struct End {
    protocol::JobState state = protocol::JobState::kSucceeded;
    sampling::FinishReason reason = sampling::FinishReason::kNone;
    std::optional<ErrorCode> error;
    std::string message;
  };
  void finish(Job& job, End end, Instant now);
  journal::Finished record_of(const Job& job, const protocol::JobResult& result, int64_t expires_at_ms) const;
  void observe(const Job& job, const protocol::JobResult& result, Instant now);
  void observe_generation(const Job& job, const protocol::JobResult& result, Instant now);

  SchedulerTables& tables_;
  Leases& leases_;
  int64_t succeeded_ = 0, failed_ = 0, cancelled_ = 0, expired_ = 0;
};

// For messages: "attempt 2 of 3".
std::string last_attempt(const Job& job);

}  // namespace optserve::scheduler
