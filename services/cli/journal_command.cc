#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "cli/command.h"
#include "cli/connection.h"
#include "cli/text_table.h"

namespace optserve::cli {
namespace {

class JournalCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command("journal", "Take care of the scheduler's journal", selected);
    ConfigParser& backup =
        command.add_command("backup", "Have the running scheduler write a copy to its backup folder", backup_);
    add_options(backup, connection_options_);
    backup.add("wait-seconds", wait_seconds_, "Longest time to wait for the copy");
    backup.add("json", json_, "Print a JSON object");
  }

  int run() override {
    Connection connection = Connection::open(connection_options_);
    const auto answers = connection.client().backup(seconds(wait_seconds_));
    nlohmann::ordered_json backups = nlohmann::ordered_json::array();
    for (const auto& [endpoint, answer] : answers) {
      if (!answer.ok()) continue;
      const protocol::BackedUp& copy = answer.value();
      backups.push_back({{"endpoint", endpoint}, {"file", copy.file}, {"bytes", copy.bytes}});
      if (!json_)
        std::printf("scheduler %s: %s, %lld bytes\n", endpoint.c_str(), copy.file.c_str(),
                    static_cast<long long>(copy.bytes));
    }
    if (json_) std::fputs(json_line({{"backups", std::move(backups)}}).c_str(), stdout);
    return report_refusals(answers);
  }

 private:
  ConnectionOptions connection_options_;
  bool backup_ = false;
  int wait_seconds_ = 600;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_journal_command() { return std::make_unique<JournalCommand>(); }

}  // namespace optserve::cli
