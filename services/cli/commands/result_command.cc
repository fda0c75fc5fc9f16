#include <unistd.h>

#include <cstdio>

#include "base/clock.h"
#include "base/shutdown.h"
#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/text/result_text.h"

namespace optserve::cli {
namespace {

class ResultCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command("result", "Print the output of a submitted job", selected);
    command.add_positional("job", job_, "Id of the job", true);
    add_options(command, connection_options_);
    command.add("wait", wait_, "Wait until the job has ended");
    command.add("wait-seconds", wait_seconds_, "Longest time to wait with --wait");
    command.add("json", json_, "Print a JSON object instead of the text");
  }

  int run(const Clock&) override {
    const JobId job = parse_job(job_);
    Connection connection = Connection::open(connection_options_);
    const protocol::JobResult result =
        value_or_fail(wait_ ? connection.client().wait(job, seconds(wait_seconds_)) : connection.client().get(job));
    if (json_) {
      std::fputs(result_json(result).c_str(), stdout);
      return exit_status_of(result);
    }
    std::fwrite(result.text.data(), 1, result.text.size(), stdout);
    if (isatty(STDOUT_FILENO) != 0 && !result.text.empty()) std::fputc('\n', stdout);
    if (exit_status_of(result) != kExitOk) std::fprintf(stderr, "optserve result: %s", result_summary(result).c_str());
    return exit_status_of(result);
  }

 private:
  std::string job_;
  ConnectionOptions connection_options_;
  bool wait_ = false;
  int wait_seconds_ = 3600;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_result_command() { return std::make_unique<ResultCommand>(); }

}  // namespace optserve::cli
