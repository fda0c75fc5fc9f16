// The limits of a job's time. All count from the moment at which it begins: its acceptance, or the end of the delay
// that its client set.
#pragma once

#include <string>

#include "scheduler/jobs/job.h"

namespace optserve::scheduler {

// Sets the moments that the limits count from, for a job that was accepted `age_ms` ago by the journal's clock. A
// job never gets more than its whole time: a negative age counts as none.
void set_times(Job& job, Instant now, int64_t age_ms);

// The limit that is reached first: of the job's whole time, of the time until its first start, or of its present
// attempt.
struct TimeLimit {
  enum class Kind : uint8_t { kTotal, kStart, kRun };
  Kind kind = Kind::kTotal;
  Instant at{};
};
TimeLimit next_limit(const Job& job);
// Tells people which limit was reached, with its number.
std::string limit_message(const Job& job, TimeLimit::Kind kind);

// The moment at which half of the time is over that the job has to start.
Instant half_of_time_to_start(const Job& job);

// The time that is left to the attempt that is about to be dispatched, at least 1.
int64_t remaining_ms(const Job& job, Instant now);

}  // namespace optserve::scheduler
