#include <cstdio>

#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/text/result_text.h"

namespace optserve::cli {
namespace {

class CancelCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command("cancel", "Cancel a job", selected);
    command.add_positional("job", job_, "Id of the job, or its first digits", true);
    add_options(command, connection_options_);
    command.add("json", json_, "Print a JSON object");
    command.add_example("optserve cancel 4f2a0c91", "the job whose id begins so");
    command.add_example("optserve cancel 4f2a0c91 --json", "its state, for a program");
    command.add_example("optserve cancel 4f2a0c91 --dir run2", "in the local stack of another folder");
  }

  int run(const Clock&) override {
    check_job(job_);
    Connection connection = Connection::open(connection_options_);
    Client& client = connection.client();
    const protocol::JobResult result = value_or_fail(client.cancel(find_job(client, job_)));
    std::fputs(json_ ? result_json(result).c_str() : result_summary(result).c_str(), json_ ? stdout : stderr);
    return result.state == protocol::JobState::kCancelled ? kExitOk : kExitFailed;
  }

 private:
  std::string job_;
  ConnectionOptions connection_options_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_cancel_command() { return std::make_unique<CancelCommand>(); }

}  // namespace optserve::cli
