#include "cli/commands/followed_job.h"

#include <cstdio>
#include <utility>

#include "base/clock.h"
#include "base/shutdown.h"
#include "cli/commands/connection.h"

namespace optserve::cli {
namespace {

constexpr milliseconds kSignalPoll{50};
constexpr milliseconds kBetweenLooks{500};  // at the connection
constexpr seconds kLossTold{3};             // a shorter loss is not reported
constexpr seconds kCancelWithin{2};         // whoever pressed Ctrl-C waits no longer than this
constexpr seconds kEndAfterCancel{5};

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
    state->pieces.push_back({std::string(piece), event});
    state->changed.notify_one();
  };
  stream.on_progress = [state](const protocol::JobEvent& event) {
    const std::lock_guard lock(state->mutex);
    if (!state->pieces.empty() && state->pieces.back().text.empty()) state->pieces.pop_back();  // told by this one
    state->pieces.push_back({"", event});
    state->changed.notify_one();
  };
  stream.on_restarted = [state](const JobId&) {
    const std::lock_guard lock(state->mutex);
    std::fputs("\noptserve: after a restart of the scheduler the text was computed anew; it begins again:\n", stderr);
    protocol::JobEvent begin;
    begin.state = protocol::JobState::kRunning;
    state->pieces.assign(1, {"\n", begin});
  };
  stream.on_finished = [state](const protocol::JobResult& result) {
    const std::lock_guard lock(state->mutex);
    state->results.insert_or_assign(result.job, result);
    state->changed.notify_one();
  };
  stream.on_lost = [state](const JobId&, const Refusal& why) {
    const std::lock_guard lock(state->mutex);
    state->lost = why;
    state->changed.notify_one();
  };
  return stream;
}

void FollowedJob::cancel(const std::vector<JobId>& jobs) {
  for (const JobId& job : jobs) {
    const Result<protocol::JobResult> cancelled = client_.cancel(job, kCancelWithin);
    if (!cancelled.ok()) {
      throw CommandFailure{kExitInterrupted,
                           "interrupted, but job " + job.hex() +
                               " could not be cancelled and may run on: " + cancelled.refusal().message,
                           std::string(error_code_name(cancelled.refusal().code))};
    }
    std::fprintf(stderr, "\noptserve: cancelled job %s\n", job.hex().c_str());
  }
}

void FollowedJob::watch_connection(const JobId& job) {
  const Instant now = clock_.now();
  if (now < next_look_) return;
  next_look_ = now + kBetweenLooks;
  const milliseconds away = client_.unreachable_for(job);
  const auto patience_s = std::chrono::duration_cast<seconds>(patience_).count();
  if (away >= patience_) {
    throw CommandFailure{kExitUnreachable,
                         "the scheduler has not answered for " + std::to_string(patience_s) + " s; job " + job.hex() +
                             " may still be done: 'optserve result " + job.hex() + "' fetches its output",
                         "unavailable"};
  }
  if (away >= kLossTold && !std::exchange(is_loss_told_, true)) {
    std::fprintf(stderr, "\noptserve: no answer from the scheduler; waiting up to %lld s for it\n",
                 static_cast<long long>(patience_s));
  } else if (away == milliseconds::zero() && std::exchange(is_loss_told_, false)) {
    std::fprintf(stderr, "optserve: the scheduler answers again\n");
  }
}

protocol::JobResult FollowedJob::run(protocol::JobSpec job, const OnEvent& on_event) {
  std::vector<protocol::JobSpec> jobs;
  jobs.push_back(std::move(job));
  return run_all(std::move(jobs), on_event).front();
}

std::vector<protocol::JobResult> FollowedJob::run_all(std::vector<protocol::JobSpec> jobs, const OnEvent& on_event) {
  install_shutdown_signals();
  const auto state = std::make_shared<State>();
  const size_t count = jobs.size();
  const auto outcomes = value_or_fail(client_.submit(std::move(jobs), stream_into(state)));
  check_eq(outcomes.size(), count, "outcomes of the jobs");
  std::vector<JobId> accepted;
  const protocol::SubmitOutcome* refused = nullptr;
  for (const protocol::SubmitOutcome& outcome : outcomes) {
    if (outcome.job) {
      accepted.push_back(*outcome.job);
    } else {
      refused = &outcome;
    }
  }
  if (refused != nullptr) {
    cancel(accepted);
    fail(refuse(refused->error.value_or(ErrorCode::kInternal), refused->message));
  }
  return wait_for_ends(accepted, *state, true, on_event);
}

protocol::JobResult FollowedJob::follow(const JobId& job, const OnEvent& on_event) {
  install_shutdown_signals();
  const auto state = std::make_shared<State>();
  if (const Status attached = client_.attach(job, 0, stream_into(state)); !attached.ok()) fail(attached.refusal());
  return wait_for_ends({job}, *state, false, on_event).front();
}

std::vector<protocol::JobResult> FollowedJob::wait_for_ends(const std::vector<JobId>& jobs, State& state,
                                                            bool owns_jobs, const OnEvent& on_event) {
  std::optional<Instant> cancelled_at;
  size_t seen = 0;  // results
  std::unique_lock lock(state.mutex);
  while (true) {
    state.changed.wait_for(lock, kSignalPoll, [&] {
      return !state.pieces.empty() || state.results.size() > seen || state.lost.has_value();
    });
    const std::vector<Piece> pieces = std::exchange(state.pieces, {});
    const auto results = state.results;
    const auto lost = state.lost;
    lock.unlock();
    bool readable = true;
    for (const Piece& piece : pieces) readable = readable && (cancelled_at || on_event(piece.text, piece.event));
    seen = results.size();
    if (seen == jobs.size()) return in_order(jobs, results);
    if (lost) fail(*lost);
    const bool is_stopped = !readable || shutdown_requested();
    if (is_stopped && !owns_jobs) {
      throw CommandFailure{kExitInterrupted, "interrupted; job " + jobs.front().hex() + " goes on", "cancelled"};
    }
    if (is_stopped && !cancelled_at) {
      cancelled_at = clock_.now();
      cancel(jobs);
    }
    const bool is_late = cancelled_at && clock_.now() - *cancelled_at > kEndAfterCancel;
    if (shutdown_forced() || is_late) {
      throw CommandFailure{kExitInterrupted, "interrupted; job " + jobs.front().hex() + " was told to end",
                           "cancelled"};
    }
    watch_connection(jobs.front());
    lock.lock();
  }
}

}  // namespace optserve::cli
