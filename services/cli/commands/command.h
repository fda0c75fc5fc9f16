// The subcommands of `optserve`. A new one is a file x_command.cc that defines make_x_command(), and two lines below.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/config.h"
#include "base/exit_status.h"

namespace optserve::cli {

// Thrown to end a command with this exit status, after the message was printed.
struct CommandFailure {
  int exit_status = 0;
  std::string message;
  std::string code = {};  // for programs, as error_code_name() has them; empty: what the exit status means
};

class Command {
 public:
  virtual ~Command() = default;
  // Adds itself and its options to `parser`, which sets `selected` when the command line names it.
  virtual void declare(ConfigParser& parser) = 0;
  // Called once, after parsing. Returns the exit status. Throws CommandFailure, or Error if the environment fails.
  virtual int run(const Clock& clock) = 0;

  bool selected = false;
};

std::unique_ptr<Command> make_generate_command();
std::unique_ptr<Command> make_prompt_command();
std::unique_ptr<Command> make_submit_command();
std::unique_ptr<Command> make_result_command();
std::unique_ptr<Command> make_cancel_command();
std::unique_ptr<Command> make_status_command();
std::unique_ptr<Command> make_jobs_command();
std::unique_ptr<Command> make_queue_command();
std::unique_ptr<Command> make_journal_command();
std::unique_ptr<Command> make_keys_command();
std::unique_ptr<Command> make_top_command();
std::unique_ptr<Command> make_doctor_command();
std::unique_ptr<Command> make_preflight_command();
std::unique_ptr<Command> make_up_command();
std::unique_ptr<Command> make_down_command();
std::unique_ptr<Command> make_convert_command();
std::unique_ptr<Command> make_export_command();
std::unique_ptr<Command> make_inspect_command();
std::unique_ptr<Command> make_calibrate_command();
std::unique_ptr<Command> make_bench_command();
std::unique_ptr<Command> make_batch_command();

// Every command, in the order of the help text.
inline constexpr std::array kMakeCommands = {
    make_generate_command, make_prompt_command,  make_batch_command,  make_submit_command,    make_result_command,
    make_cancel_command,   make_status_command,  make_jobs_command,   make_queue_command,     make_journal_command,
    make_keys_command,     make_top_command,     make_doctor_command, make_preflight_command, make_up_command,
    make_down_command,     make_convert_command, make_export_command, make_inspect_command,   make_calibrate_command,
    make_bench_command,
};

// Every command, declared at a parser of the program `optserve`.
std::vector<std::unique_ptr<Command>> declare_commands(ConfigParser& parser);

// Runs the command line of `optserve` and returns the exit status. Never throws.
int run_command_line(int argc, const char* const* argv, const Clock& clock);

}  // namespace optserve::cli
