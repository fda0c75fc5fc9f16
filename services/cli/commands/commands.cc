#include <cstdio>
#include <vector>

#include "base/log.h"
#include "cli/commands/command.h"

namespace optserve::cli {
namespace {

int parse_and_run(int argc, const char* const* argv, const Clock& clock) {
  ConfigParser parser("optserve",
                      "Serves OPT language models: local stacks, jobs, checkpoints.\n"
                      "Exit status: 0 success, 1 refused or failed, 2 wrong usage, 3 no scheduler answers.");
  std::vector<std::unique_ptr<Command>> commands;
  for (const auto& make : kMakeCommands) commands.push_back(make());
  for (const auto& command : commands) command->declare(parser);
  if (const int status = parser.parse(argc, argv); status >= 0) return status == 0 ? kExitOk : kExitUsage;
  for (const auto& command : commands) {
    if (command->selected) return command->run(clock);
  }
  return kExitUsage;
}

}  // namespace

int run_command_line(int argc, const char* const* argv, const Clock& clock) {
  try {
    init_logging("optserve", "warn", LogFormat::kText);  // standard output belongs to the commands
    return parse_and_run(argc, argv, clock);
  } catch (const CommandFailure& failure) {
    std::fprintf(stderr, "optserve: %s\n", failure.message.c_str());
    return failure.exit_status;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "optserve: %s\n", error.what());
    return kExitRefused;
  }
}

}  // namespace optserve::cli
