#include "scheduler/clients/followers.h"

#include <utility>

namespace optserve::scheduler {
namespace {

constexpr size_t kWatchedJobsPerTurn = 1'000;

}  // namespace

bool Followers::follow(Job& job, const std::shared_ptr<Client>& client, const StreamStart& start, Instant now) {
  if (!tables_.streams.subscribe(job, client, start)) return false;
  if (job.is_cancelled_when_left()) watch(job, now);
  return true;
}

void Followers::watch(Job& job, Instant now) {
  job.followers().abandoned_at = {};
  if (std::exchange(job.followers().watched, true)) return;
  signs_.emplace(now + tables_.options.sign_of_life_interval, job.id);
}

void Followers::note_left(Job& job, Instant now) {
  if (job.followers().abandoned_at != Instant{}) return;
  job.followers().abandoned_at = now + tables_.options.disconnect_grace;
  left_.emplace(job.followers().abandoned_at, job.id);
}

std::vector<JobId> Followers::take_due(Times& times, Instant now) {
  std::vector<JobId> due;
  while (!times.empty() && times.begin()->first <= now && due.size() < kWatchedJobsPerTurn) {
    due.push_back(times.begin()->second);
    times.erase(times.begin());
  }
  return due;
}

void Followers::check(Instant now, transport::Outbox& out) {
  ClientStreams& streams = tables_.streams;
  for (const JobId& id : streams.take_left()) {
    Job* job = tables_.jobs.find(id);
    if (job != nullptr && !streams.has_followers(*job)) note_left(*job, now);
  }
  for (const JobId& id : take_due(signs_, now)) {
    Job* job = tables_.jobs.find(id);
    if (job == nullptr) continue;
    job->followers().watched = false;
    if (!streams.has_followers(*job)) continue;
    watch(*job, now);
    job->followers().tell_anyway = true;
    streams.touch(*job);
    streams.probe(*job, out);
  }
  for (const JobId& id : take_due(left_, now)) {
    Job* job = tables_.jobs.find(id);
    if (job == nullptr) continue;
    const Instant abandoned_at = job->followers().abandoned_at;
    if (abandoned_at == Instant{} || abandoned_at > now) continue;  // somebody came back
    const auto grace = std::chrono::duration_cast<seconds>(tables_.options.disconnect_grace);
    endings_.cancel(*job,
                    "cancelled: nobody has followed it for " + std::to_string(grace.count()) +
                        " s, and it asked to be cancelled then",
                    now);
  }
}

}  // namespace optserve::scheduler
