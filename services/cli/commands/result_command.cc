#include <unistd.h>

#include <cstdio>

#include "base/clock.h"
#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/commands/followed_job.h"
#include "cli/text/result_text.h"

namespace optserve::cli {
namespace {

class ResultCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command("result", "Print the output of a submitted job", selected);
    command.add_positional("job", job_, "Id of the job, or its first digits", false);
    command.add("key", key_, "Key of the job, instead of its id");
    command.add("tenant", tenant_, "With --key: the tenant of the job");
    command.add("follow", follow_, "Print the output while it is generated; Ctrl-C leaves the job alone");
    command.add("wait", wait_, "Wait until the job has ended");
    command.add("wait-seconds", wait_seconds_, "Longest time to wait with --wait").range(0, 365 * 24 * 3600);
    command.add("json", json_, "Print a JSON object instead of the text");
    add_options(command, connection_options_);
    add_patience_option(command, connection_options_);
    command.add_example("optserve result 4f2a --follow", "the output of a job as it comes");
    command.add_example("optserve result --key story-1 --wait", "the output of the job with this key, at its end");
    command.add_example("optserve result 4f2a --json", "everything that is known of its output");
  }

  int run(const Clock&) override {
    if (job_.empty() == key_.empty()) {
      throw CommandFailure{kExitUsage, "expected the id of a job or --key, and not both"};
    }
    if (!job_.empty()) check_job(job_);
    Connection connection = Connection::open(connection_options_);
    Client& client = connection.client();
    const JobId job = key_.empty() ? find_job(client, job_) : find_key(client, tenant_, key_);
    if (follow_) return follow(client, job);
    return report(value_or_fail(wait_ ? client.wait(job, seconds(wait_seconds_)) : client.get(job)));
  }

 private:
  int follow(Client& client, const JobId& job) {
    FollowedJob followed(client, connection_options_.patience());
    const protocol::JobResult result = followed.follow(job, [this](std::string_view piece, const protocol::JobEvent&) {
      if (json_) return true;
      return std::fwrite(piece.data(), 1, piece.size(), stdout) == piece.size() && std::fflush(stdout) == 0;
    });
    if (json_) return report(result);
    if (isatty(STDOUT_FILENO) != 0) std::fputc('\n', stdout);
    if (exit_status_of(result) != kExitOk) std::fprintf(stderr, "optserve: %s", result_summary(result).c_str());
    return exit_status_of(result);
  }

  int report(const protocol::JobResult& result) const {
    if (json_) {
      std::fputs(result_json(result).c_str(), stdout);
      return exit_status_of(result);
    }
    std::fwrite(result.text.data(), 1, result.text.size(), stdout);
    if (isatty(STDOUT_FILENO) != 0 && !result.text.empty()) std::fputc('\n', stdout);
    if (exit_status_of(result) != kExitOk) std::fprintf(stderr, "optserve: %s", result_summary(result).c_str());
    return exit_status_of(result);
  }

  std::string job_, key_, tenant_;
  ConnectionOptions connection_options_;
  bool wait_ = false;
  bool follow_ = false;
  int wait_seconds_ = 3600;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_result_command() { return std::make_unique<ResultCommand>(); }

}  // namespace optserve::cli
