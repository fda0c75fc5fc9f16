#include "scheduler/clients/follower_watch.h"

namespace optserve::scheduler {
namespace {

constexpr size_t kJobsPerTurn = 1'000;

}  // namespace

void FollowerWatch::followed(Job& job, Instant now) {
  job.abandoned_at = {};
  if (std::exchange(job.watched, true)) return;
  signs_.emplace(now + options_.sign_of_life_interval, job.id);
}

void FollowerWatch::left(Job& job, Instant now) {
  if (job.abandoned_at != Instant{}) return;
  job.abandoned_at = now + options_.disconnect_grace;
  left_.emplace(job.abandoned_at, job.id);
}

std::vector<JobId> FollowerWatch::take(Times& times, Instant now) {
  std::vector<JobId> due;
  while (!times.empty() && times.begin()->first <= now && due.size() < kJobsPerTurn) {
    due.push_back(times.begin()->second);
    times.erase(times.begin());
  }
  return due;
}

}  // namespace optserve::scheduler
