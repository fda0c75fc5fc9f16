#include "cli/followed_job.h"

#include <cstdio>
#include <utility>

#include "base/clock.h"
#include "base/shutdown.h"
#include "cli/connection.h"

namespace optserve::cli {
namespace {

constexpr milliseconds kSignalPoll{50};

void cancel(Client& client, const JobId& job) {
  const Result<protocol::JobResult> cancelled = client.cancel(job);
  if (!cancelled.ok()) fail(cancelled.refusal());
  std::fprintf(stderr, "\noptserve: cancelled job %s\n", job.hex().c_str());
}

}  // namespace

JobStream FollowedJob::stream_into(const std::shared_ptr<State>& state) {
  JobStream stream;
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
  stream.on_finished = [state](const protocol::JobResult& result) {
    const std::lock_guard lock(state->mutex);
    state->result = result;
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
  install_shutdown_signals();
  const auto state = std::make_shared<State>();
  const auto outcomes = value_or_fail(client.submit({std::move(job)}, stream_into(state)));
  check_eq(outcomes.size(), size_t{1}, "outcomes of one job");
  const protocol::SubmitOutcome& outcome = outcomes.front();
  if (!outcome.job) fail(refuse(outcome.error.value_or(ErrorCode::kInternal), outcome.message));
  bool cancelled = false;
  std::unique_lock lock(state->mutex);
  while (true) {
    state->changed.wait_for(lock, kSignalPoll,
                            [&] { return state->last_event || state->result || state->lost.has_value(); });
    const std::string text = std::exchange(state->text, {});
    const auto event = std::exchange(state->last_event, std::nullopt);
    const auto result = state->result;
    const auto lost = state->lost;
    lock.unlock();
    const bool readable = !event || cancelled || on_event(text, *event);
    if (result) return *result;
    if (lost) fail(*lost);
    if (!cancelled && (!readable || shutdown_requested())) {
      cancelled = true;
      cancel(client, *outcome.job);
    }
    if (shutdown_forced()) fail(refuse(ErrorCode::kCancelled, "interrupted twice; job " + outcome.job->hex()));
    lock.lock();
  }
}

}  // namespace optserve::cli
