#include <cstdio>

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
  }

  int run(const Clock&) override {
    const Connection connection = Connection::open(connection_options_);
    const std::string text = json_ ? status_json(connection.status()) : status_table(connection.status());
    std::fputs(text.c_str(), stdout);
    return kExitOk;
  }

 private:
  ConnectionOptions connection_options_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_status_command() { return std::make_unique<StatusCommand>(); }

}  // namespace optserve::cli
