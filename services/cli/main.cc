#include "cli/commands/command.h"

int main(int argc, char** argv) { return optserve::cli::run_command_line(argc, argv); }
