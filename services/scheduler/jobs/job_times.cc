#include "scheduler/jobs/job_times.h"

#include <algorithm>

namespace optserve::scheduler {

void set_times(Job& job, Instant now, int64_t age_ms) {
  const int64_t longest = job.spec().delay_ms + job.spec().ttl_ms;
  const int64_t age = std::clamp<int64_t>(age_ms, 0, longest);
  job.times.accepted_at = now;
  job.times.begins_at = now + milliseconds(job.spec().delay_ms - age);
  job.times.expires_at = now + milliseconds(longest - age);
}

TimeLimit next_limit(const Job& job) {
  TimeLimit limit{TimeLimit::Kind::kTotal, job.times.expires_at};
  if (job.lease().number != 0 && job.spec().run_ms > 0) {
    const Instant run_until = job.lease().began_at + milliseconds(job.spec().run_ms);
    if (run_until < limit.at) limit = {TimeLimit::Kind::kRun, run_until};
  }
  if (!job.attempts().started && job.spec().queue_ms > 0) {
    const Instant start_until = job.times.begins_at + milliseconds(job.spec().queue_ms);
    if (start_until < limit.at) limit = {TimeLimit::Kind::kStart, start_until};
  }
  return limit;
}

std::string limit_message(const Job& job, TimeLimit::Kind kind) {
  switch (kind) {
    case TimeLimit::Kind::kStart:
      return "the job did not start within its queue_ms of " + std::to_string(job.spec().queue_ms) + " ms";
    case TimeLimit::Kind::kRun:
      return "attempt " + std::to_string(job.attempts().count) + " ran longer than the job's run_ms of " +
             std::to_string(job.spec().run_ms) + " ms";
    case TimeLimit::Kind::kTotal:
      break;
  }
  return "the job's time (ttl_ms) of " + std::to_string(job.spec().ttl_ms) + " ms ran out";
}

Instant half_of_time_to_start(const Job& job) {
  Instant until = job.times.expires_at;
  if (!job.attempts().started && job.spec().queue_ms > 0) {
    until = std::min(until, job.times.begins_at + milliseconds(job.spec().queue_ms));
  }
  return job.times.begins_at + (until - job.times.begins_at) / 2;
}

int64_t remaining_ms(const Job& job, Instant now) {
  return std::max<int64_t>(1, std::chrono::ceil<milliseconds>(next_limit(job).at - now).count());
}

}  // namespace optserve::scheduler
