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

#include "base/error.h"
#include "client/client.h"

namespace optserve::cli {

class FollowedJob {
 public:
  // Called on the command's thread. `piece` is empty if only the event's progress is new. If it returns false, because
  // nobody can read the output, the jobs are cancelled.
  using OnEvent = std::function<bool(std::string_view piece, const protocol::JobEvent& event)>;

  // Submits the job and follows it to its end. Throws CommandFailure if it is refused or lost.
  static protocol::JobResult run(client::Client& client, protocol::JobSpec job, const OnEvent& on_event);
  // The same for several jobs, whose texts form one stream. The results are in the order of the jobs. If one job is
  // refused, the accepted ones are cancelled.
  static std::vector<protocol::JobResult> run_all(client::Client& client, std::vector<protocol::JobSpec> jobs,
                                                  const OnEvent& on_event);

 private:
  // Shared with the client's thread, which may outlive run() by a moment.
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::string text;  // that has not been handed on
    std::optional<protocol::JobEvent> last_event;
    std::map<JobId, protocol::JobResult> results;
    std::optional<Refusal> lost;
  };
  static client::JobStream stream_into(const std::shared_ptr<State>& state);
};

}  // namespace optserve::cli
