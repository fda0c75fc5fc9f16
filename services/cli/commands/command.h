// One subcommand of `optserve`.
#pragma once

#include <memory>
#include <vector>

#include "base/config.h"

namespace optserve::cli {

class Command {
 public:
  virtual ~Command() = default;
  // Adds itself and its options to `parser`, which sets `selected` when the command line names it.
  virtual void declare(ConfigParser& parser) = 0;
  // Returns the exit status (exit_status.h).
  virtual int run() = 0;

  bool selected = false;
};

std::unique_ptr<Command> make_generate_command();
std::unique_ptr<Command> make_submit_command();
std::unique_ptr<Command> make_result_command();
std::unique_ptr<Command> make_cancel_command();
std::unique_ptr<Command> make_status_command();
std::unique_ptr<Command> make_jobs_command();
std::unique_ptr<Command> make_queue_command();
std::unique_ptr<Command> make_journal_command();
std::unique_ptr<Command> make_up_command();
std::unique_ptr<Command> make_down_command();
std::unique_ptr<Command> make_convert_command();
std::unique_ptr<Command> make_export_command();
std::unique_ptr<Command> make_inspect_command();
std::unique_ptr<Command> make_calibrate_command();
std::unique_ptr<Command> make_bench_command();

// All of them, in the order of the help text.
std::vector<std::unique_ptr<Command>> make_commands();

// Runs the command line of `optserve`. Never throws.
int run_command_line(int argc, const char* const* argv);

}  // namespace optserve::cli
