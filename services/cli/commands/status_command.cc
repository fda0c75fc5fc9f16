#include <poll.h>
#include <unistd.h>

#include <cstdio>

#include "base/shutdown.h"
#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/text/status_text.h"

namespace optserve::cli {
namespace {

class StatusCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command =
        parser.add_command("status", "Show queues, models and connected tokenizers, workers and converters", selected);
    add_options(command, connection_options_);
    command.add("json", json_, "Print a JSON object instead of a table");
    command.add("watch", watch_, "Print again and again, until Ctrl-C");
    command.add("interval", interval_, "With --watch: seconds between two looks").range(0.1, 3600);
    command.add_example("optserve status", "what is connected, queued and running");
    command.add_example("optserve status --watch", "a view that stays current; see also optserve top");
    command.add_example("optserve status --json --scheduler tcp://a:5555,tcp://b:5555",
                        "of two schedulers, for a program");
  }

  int run(const Clock&) override {
    Connection connection = Connection::open(connection_options_);
    if (!watch_) {
      print(connection.status());
      return kExitOk;
    }
    install_shutdown_signals();
    const bool clears = isatty(STDOUT_FILENO) != 0 && !json_;
    for (auto answers = connection.status();; answers = connection.client().status()) {
      if (clears) std::fputs("\x1b[H\x1b[2J", stdout);
      print(answers);
      if (std::fflush(stdout) != 0) return kExitOk;  // the reader has gone
      pollfd entry{shutdown_fd(), POLLIN, 0};
      if (poll(&entry, 1, static_cast<int>(interval_ * 1000)) > 0) return kExitOk;
    }
  }

 private:
  void print(const Answers<protocol::SystemStatus>& answers) const {
    std::fputs((json_ ? status_json(answers) : status_table(answers)).c_str(), stdout);
  }

  ConnectionOptions connection_options_;
  bool json_ = false;
  bool watch_ = false;
  double interval_ = 2;
};

}  // namespace

std::unique_ptr<Command> make_status_command() { return std::make_unique<StatusCommand>(); }

}  // namespace optserve::cli
