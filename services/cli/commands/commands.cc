#include <unistd.h>

#include <cstdio>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "cli/commands/command.h"
#include "cli/stack/child_process.h"

namespace optserve::cli {
namespace {

// Converting needs no scheduler, so it lives in optserve-converter; services do not include each other.
bool is_for_converter(int argc, const char* const* argv) {
  if (argc < 2) return false;
  const std::string_view command = argv[1];
  if (command != "convert") return command == "inspect" || command == "export" || command == "calibrate";
  for (int i = 2; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--remote") return false;
  }
  return true;
}

// Does not return: this process becomes the converter, with the same arguments.
[[noreturn]] void become_converter(int argc, const char* const* argv) {
  const std::string program = sibling_program("optserve-converter");
  std::vector<char*> arguments{const_cast<char*>(program.c_str())};
  for (int i = 1; i < argc; ++i) arguments.push_back(const_cast<char*>(argv[i]));
  arguments.push_back(nullptr);
  execv(program.c_str(), arguments.data());
  throw errno_error("start " + program);
}

int parse_and_run(int argc, const char* const* argv) {
  if (is_for_converter(argc, argv)) become_converter(argc, argv);
  ConfigParser parser("optserve",
                      "Serves OPT language models: local stacks, jobs, checkpoints.\n"
                      "Exit status: 0 success, 1 refused or failed, 2 wrong usage, 3 no scheduler answers.");
  std::vector<std::unique_ptr<Command>> commands;
  for (const auto& make : kMakeCommands) commands.push_back(make());
  for (const auto& command : commands) command->declare(parser);
  if (const int status = parser.parse(argc, argv); status >= 0) return status == 0 ? kExitOk : kExitUsage;
  for (const auto& command : commands) {
    if (command->selected) return command->run();
  }
  return kExitUsage;
}

}  // namespace

int run_command_line(int argc, const char* const* argv) {
  try {
    init_logging("optserve", "warn", LogFormat::kText);  // standard output belongs to the commands
    return parse_and_run(argc, argv);
  } catch (const CommandFailure& failure) {
    std::fprintf(stderr, "optserve: %s\n", failure.message.c_str());
    return failure.exit_status;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "optserve: %s\n", error.what());
    return kExitRefused;
  }
}

}  // namespace optserve::cli
