#include "cli/commands/command.h"

int main(int argc, char** argv) {
  const optserve::SystemClock clock;
  return optserve::cli::run_command_line(argc, argv, clock);
}
