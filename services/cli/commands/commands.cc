#include <cerrno>
#include <cstdio>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/program.h"
#include "cli/commands/command.h"

namespace optserve::cli {
namespace {

// Words that other systems have for what a command does.
constexpr std::pair<const char*, const char*> kHints[] = {
    {"serve", "up"},          {"start", "up"},          {"run", "generate"},
    {"complete", "generate"}, {"chat", "prompt"},       {"stop", "down"},
    {"ps", "status"},         {"info", "status"},       {"list", "jobs list"},
    {"ls", "jobs list"},      {"enqueue", "submit"},    {"wait", "result --wait"},
    {"fetch", "result"},      {"show", "jobs show"},    {"requeue", "jobs requeue"},
    {"purge", "jobs purge"},  {"pause", "queue pause"}, {"resume", "queue resume"},
    {"drain", "queue drain"}, {"benchmark", "bench"},   {"watch", "top"},
    {"htop", "top"},          {"rm", "cancel"},         {"kill", "cancel"},
    {"check", "doctor"},      {"diagnose", "doctor"},   {"collect-env", "doctor"},
    {"repl", "prompt"},
};

void describe(ConfigParser& parser) {
  for (const auto& [word, command] : kHints) parser.add_hint(word, command);
  parser.add_example("optserve convert checkpoints/opt-125m models/opt-125m", "make a checkpoint that can be served");
  parser.add_example("optserve up --model models/opt-125m", "serve it on this machine");
  parser.add_example("optserve generate \"The capital of France is\"", "continue a text");
  parser.add_example("optserve status", "what is connected, queued and running");
}

}  // namespace

std::vector<std::unique_ptr<Command>> declare_commands(ConfigParser& parser) {
  describe(parser);
  std::vector<std::unique_ptr<Command>> commands;
  for (const auto& make : kMakeCommands) commands.push_back(make());
  for (const auto& command : commands) command->declare(parser);
  return commands;
}

namespace {

// With --json an error is a JSON object on standard output.
class Runner {
 public:
  Runner(int argc, const char* const* argv) : argc_(argc), argv_(argv) {
    const bool is_bench = argc > 1 && std::string_view(argv[1]) == "bench";  // whose --json names a file
    for (int i = 1; i < argc && !is_bench; ++i) as_json_ = as_json_ || std::string_view(argv[i]) == "--json";
  }

  int run(const Clock& clock) {
    try {
      init_logging("optserve", "warn", LogFormat::kText);  // standard output belongs to the commands
      return parse_and_run(clock);
    } catch (const CommandFailure& failure) {
      return report(failure.message, failure.code, failure.exit_status);
    } catch (const std::exception& error) {
      return report(error.what(), "internal", kExitFailed);
    }
  }

 private:
  int parse_and_run(const Clock& clock) {
    ConfigParser parser("optserve",
                        "Serves OPT language models: local stacks, jobs, checkpoints.\n"
                        "Exit status: 0 success, 1 refused or failed, 2 wrong usage, 3 no scheduler answers, 78 wrong "
                        "configuration file, 130 interrupted.");
    const std::vector<std::unique_ptr<Command>> commands = declare_commands(parser);
    if (const int status = parser.parse(argc_, argv_); status >= 0) return status;
    for (const std::string& warning : parser.warnings()) {
      std::fprintf(stderr, "optserve: warning: %s\n", warning.c_str());
    }
    for (const auto& command : commands) {
      if (command->selected) return flushed(command->run(clock));
    }
    return kExitUsage;
  }

  // A full disk must not look like success.
  static int flushed(int status) {
    if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return status;
    if (errno == EPIPE) return status;  // the reader has closed the pipe: no error
    throw CommandFailure{kExitFailed, errno_error("write to standard output").what(), "disk_full"};
  }

  int report(const std::string& message, std::string code, int exit_status) const {
    if (code.empty()) code = exit_status == kExitUsage ? "bad_request" : "failed";
    print_failure({"optserve", code, message, exit_status}, as_json_);
    return exit_status;
  }

  int argc_;
  const char* const* argv_;
  bool as_json_ = false;
};

}  // namespace

int run_command_line(int argc, const char* const* argv, const Clock& clock) { return Runner(argc, argv).run(clock); }

}  // namespace optserve::cli
