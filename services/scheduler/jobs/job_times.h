// The limits of a job's time. All count from the moment at which it begins: its acceptance, or the end of the delay
// that its client set.
#pragma once

#include <string>

#include "scheduler/jobs/job.h"

namespace optserve::scheduler {

// Sets what its times count from, for a job that was accepted `age_ms` ago by the wall clock. That may have moved
// either way: a negative age counts as none, so that the job gets at most its whole time again.
void set_times(Job& job, Instant now, int64_t age_ms);

// The limit that ends first: in all, until the first start, or of the present attempt.
struct TimeLimit {
  enum class Kind : uint8_t { kTotal, kStart, kRun };
  Kind kind = Kind::kTotal;
  Instant at{};
};
TimeLimit next_limit(const Job& job);
// For people: which limit it was, with its number.
std::string limit_message(const Job& job, TimeLimit::Kind kind);

// Half of the time that the job has to start is over at this moment.
Instant half_of_time_to_start(const Job& job);

// Of the attempt that is about to be dispatched, at least 1.
int64_t remaining_ms(const Job& job, Instant now);

}  // namespace optserve::scheduler
