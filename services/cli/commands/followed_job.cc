#include "cli/commands/followed_job.h"

#include <cstdio>
#include <utility>

#include "base/clock.h"
#include "base/shutdown.h"
#include "cli/commands/connection.h"

namespace optserve::cli {
namespace {

constexpr milliseconds kSignalPoll{50};

void cancel(Client& client, const std::vector<JobId>& jobs) {
  for (const JobId& job : jobs) {
    const Result<protocol::JobResult> cancelled = client.cancel(job);
    if (!cancelled.ok()) fail(cancelled.refusal());
    std::fprintf(stderr, "\noptserve: cancelled job %s\n", job.hex().c_str());
  }
}

std::vector<JobId> accepted(Client& client, const std::vector<protocol::SubmitOutcome>& outcomes) {
  std::vector<JobId> jobs;
  const protocol::SubmitOutcome* refused = nullptr;
  for (const protocol::SubmitOutcome& outcome : outcomes) {
    if (outcome.job)
      jobs.push_back(*outcome.job);
    else
      refused = &outcome;
  }
  if (refused == nullptr) return jobs;
  cancel(client, jobs);
  fail(refuse(refused->error.value_or(ErrorCode::kInternal), refused->message));
}

std::vector<protocol::JobResult> in_order(const std::vector<JobId>& ids,
                                          const std::map<JobId, protocol::JobResult>& results) {
  std::vector<protocol::JobResult> list;
  for (const JobId& id : ids) list.push_back(results.at(id));
  return list;
}

}  // namespace

client::JobStream FollowedJob::stream_into(const std::shared_ptr<State>& state) {
  client::JobStream stream;
  stream.on_text = [state](std::string_view piece, const protocol::JobEvent& event) {
    const std::lock_guard lock(state->mutex);
    state->text += piece;
    state->last_event = event;
    state->changed.notify_one();
  };
  stream.on_progress = [state](const protocol::JobEvent& event) {
    const std::lock_guard lock(state->mutex);
    state->last_event = event;
    state->changed.notify_one();
  };
  stream.on_restarted = [state] {
    const std::lock_guard lock(state->mutex);
    std::fputs("\noptserve: after a restart of the scheduler the text was computed anew; it begins again:\n", stderr);
    state->text = "\n";
  };
  stream.on_finished = [state](const protocol::JobResult& result) {
    const std::lock_guard lock(state->mutex);
    state->results.insert_or_assign(result.job, result);
    state->changed.notify_one();
  };
  stream.on_lost = [state](const Refusal& why) {
    const std::lock_guard lock(state->mutex);
    state->lost = why;
    state->changed.notify_one();
  };
  return stream;
}

protocol::JobResult FollowedJob::run(Client& client, protocol::JobSpec job, const OnEvent& on_event) {
  std::vector<protocol::JobResult> results = run_all(client, {std::move(job)}, on_event);
  return std::move(results.front());
}

std::vector<protocol::JobResult> FollowedJob::run_all(Client& client, std::vector<protocol::JobSpec> jobs,
                                                      const OnEvent& on_event) {
  install_shutdown_signals();
  const auto state = std::make_shared<State>();
  const size_t count = jobs.size();
  const auto outcomes = value_or_fail(client.submit(std::move(jobs), stream_into(state)));
  check_eq(outcomes.size(), count, "outcomes of the jobs");
  const std::vector<JobId> ids = accepted(client, outcomes);
  bool cancelled = false;
  size_t seen = 0;  // results
  std::unique_lock lock(state->mutex);
  while (true) {
    state->changed.wait_for(lock, kSignalPoll, [&] {
      return state->last_event || state->results.size() > seen || state->lost.has_value();
    });
    const std::string text = std::exchange(state->text, {});
    const auto event = std::exchange(state->last_event, std::nullopt);
    const auto results = state->results;
    const auto lost = state->lost;
    lock.unlock();
    const bool readable = !event || cancelled || on_event(text, *event);
    seen = results.size();
    if (seen == count) return in_order(ids, results);
    if (lost) fail(*lost);
    if (!cancelled && (!readable || shutdown_requested())) {
      cancelled = true;
      cancel(client, ids);
    }
    if (shutdown_forced()) fail(refuse(ErrorCode::kCancelled, "interrupted twice; job " + ids.front().hex()));
    lock.lock();
  }
}

}  // namespace optserve::cli
