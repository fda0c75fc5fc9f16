// The converter's commands as a program for oracle tests: convert IN OUT [--dtype x] [--shards n] ..., export IN
// OUT [--format x] [--parts n] [--file-mb-max n], or inspect PATH [--json] [--tensors]. Prints its own peak memory as
// the last line of a conversion and of an export.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <string_view>

#include "base/shutdown.h"
#include "converter/commands/convert_command.h"
#include "converter/commands/export_command.h"
#include "converter/commands/inspect_command.h"

namespace {

// Peak resident memory of this program only; getrusage would include the parent's memory from before exec.
int64_t peak_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::atoll(line.c_str() + 6);
  }
  return 0;
}

int convert(int argc, char** argv) {
  optserve::conversion::ConvertCommand command;
  command.input = argv[2];
  command.output = argv[3];
  command.show_progress = false;
  for (int i = 4; i < argc; ++i) {
    const std::string_view option = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (option == "--allow-nonfinite") {
      command.allow_nonfinite = true;
      continue;
    }
    if (option == "--verify") {
      command.verify = true;
      continue;
    }
    if (option == "--head") command.head_word = value;
    if (option == "--tokenizer") command.tokenizer = value;
    if (option == "--prompt-tokens") command.prompt_tokens_word = value;
    if (option == "--dtype") command.dtype = value;
    if (option == "--quantize") command.quantize = value;
    if (option == "--shards") command.shards = std::stoi(value);
    if (option == "--heads") command.num_heads = std::stoi(value);
    if (option == "--name") command.name = value;
    if (option == "--vocab") command.vocab_file = value;
    if (option == "--merges") command.merges_file = value;
    if (option == "--pass-mib-max") command.pass_mib_max = std::stoll(value);
    if (option == "--sandbox") command.reader.sandbox = value;
    ++i;
  }
  optserve::install_shutdown_signals();
  const int status = optserve::converter::run_convert(command, optserve::SystemClock(), std::cout, std::cerr);
  if (status == 0) std::cout << "peak_kib " << peak_kib() << "\n";
  return status;
}

int export_checkpoint(int argc, char** argv) {
  optserve::conversion::ExportCommand command;
  command.input = argv[2];
  command.output = argv[3];
  command.show_progress = false;
  for (int i = 4; i + 1 < argc; i += 2) {
    const std::string_view option = argv[i];
    if (option == "--format") command.format = argv[i + 1];
    if (option == "--parts") command.parts = std::stoi(argv[i + 1]);
    if (option == "--file-mb-max") command.file_mb_max = std::stoi(argv[i + 1]);
  }
  const int status = optserve::converter::run_export(command, optserve::SystemClock(), std::cout, std::cerr);
  if (status == 0) std::cout << "peak_kib " << peak_kib() << "\n";
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 2 ? argv[1] : "";
  if (command == "convert" && argc > 3) return convert(argc, argv);
  if (command == "export" && argc > 3) return export_checkpoint(argc, argv);
  if (command != "inspect") {
    std::cerr << "usage: convert_tool convert IN OUT [options] | export IN OUT [options] | inspect PATH [--json] "
                 "[--tensors]\n";
    return 64;
  }
  optserve::conversion::InspectCommand inspect;
  inspect.path = argv[2];
  for (int i = 3; i < argc; ++i) {
    inspect.as_json = inspect.as_json || std::string_view(argv[i]) == "--json";
    inspect.with_tensors = inspect.with_tensors || std::string_view(argv[i]) == "--tensors";
  }
  return optserve::converter::run_inspect(inspect, std::cout, std::cerr);
}
