// Jobs that a command waits for in the foreground. Their events are handed from the client's thread to the command's,
// and Ctrl-C cancels the jobs instead of only ending the command.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "client/client.h"

namespace optserve::cli {

class FollowedJob {
 public:
  // Called on the command's thread, for each event of the stream. `piece` is empty if only the event's progress is new.
  // If it returns false, because nobody can read the output, the jobs are cancelled.
  using OnEvent = std::function<bool(std::string_view piece, const protocol::JobEvent& event)>;

  // `patience`: how long the scheduler may be unreachable.
  FollowedJob(client::Client& client, std::chrono::milliseconds patience) : client_(client), patience_(patience) {}

  // Submits the job and follows it to its end. Throws CommandFailure if it is refused or lost.
  protocol::JobResult run(protocol::JobSpec job, const OnEvent& on_event);
  // The same for several jobs, whose texts form one stream. The results are in the order of the jobs. If one job is
  // refused, the accepted ones are cancelled.
  std::vector<protocol::JobResult> run_all(std::vector<protocol::JobSpec> jobs, const OnEvent& on_event);
  // Follows a job that was submitted earlier. Ctrl-C ends only the command, not the job.
  protocol::JobResult follow(const JobId& job, const OnEvent& on_event);

 private:
  struct Piece {
    std::string text;
    protocol::JobEvent event;
  };
  // Shared with the client's thread, which may outlive run() by a moment.
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<Piece> pieces;  // that have not been handed on
    std::map<JobId, protocol::JobResult> results;
    std::optional<Refusal> lost;
  };
  static client::JobStream stream_into(const std::shared_ptr<State>& state);
  std::vector<protocol::JobResult> wait_for_ends(const std::vector<JobId>& jobs, State& state, bool owns_jobs,
                                                 const OnEvent& on_event);
  // Reports that the connection is lost or restored; throws CommandFailure when `patience_` is over.
  void watch_connection(const JobId& job);
  // Asks for the end of the jobs; throws CommandFailure if the scheduler cannot be asked.
  void cancel(const std::vector<JobId>& jobs);

  client::Client& client_;
  std::chrono::milliseconds patience_;
  SystemClock clock_;
  Instant next_look_{};
  bool is_loss_told_ = false;
};

}  // namespace optserve::cli
