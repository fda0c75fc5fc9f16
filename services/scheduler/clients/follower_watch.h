// Jobs that are cancelled when nobody follows them any more (OnDisconnect::kCancel). A peer that has vanished is
// noticed only when something is sent to it, so such jobs show a sign of life while they are followed.
#pragma once

#include <map>
#include <vector>

#include "scheduler/jobs/job.h"
#include "scheduler/scheduler_options.h"

namespace optserve::scheduler {

class FollowerWatch {
 public:
  explicit FollowerWatch(const SchedulerOptions& options) : options_(options) {}
  void followed(Job& job, Instant now);
  // The last follower has gone.
  void left(Job& job, Instant now);
  // Jobs that may owe their followers a sign of life, and those whose grace may be over. The caller looks the job up,
  // calls followed() again for the first kind, and asks is_abandoned() of the second.
  std::vector<JobId> take_silent(Instant now) { return take(signs_, now); }
  std::vector<JobId> take_left(Instant now) { return take(left_, now); }
  static bool is_abandoned(const Job& job, Instant now) {
    return job.abandoned_at != Instant{} && job.abandoned_at <= now;
  }

 private:
  using Times = std::multimap<Instant, JobId>;
  static std::vector<JobId> take(Times& times, Instant now);

  const SchedulerOptions& options_;
  Times signs_, left_;
};

}  // namespace optserve::scheduler
