#include "converter/commands/calibrate_command.h"

#include <filesystem>
#include <fstream>
#include <ostream>

#include "base/shutdown.h"
#include "checkpoint/io/byte_source.h"
#include "converter/commands/terminal.h"
#include "converter/transform/calibrate.h"
#include "tokenizer/encoder.h"

namespace optserve::converter {
namespace {

namespace fs = std::filesystem;

Status check_command(const conversion::CalibrateCommand& command) {
  if (command.checkpoint.empty() || command.text.empty() || command.output.empty()) {
    return refuse(ErrorCode::kBadRequest, "a checkpoint, --text and --output are needed");
  }
  if (std::error_code ignored; fs::exists(command.output, ignored)) {
    return refuse(ErrorCode::kBadRequest, command.output + " exists already; nothing is replaced");
  }
  return ok_status();
}

// Written beside the target first. Throws Error.
Status write_whole(const std::string& path, const std::string& bytes) {
  const std::string staged = path + ".partial";
  {
    std::ofstream file(staged, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    file.close();
    if (!file) throw errno_error("write " + staged);
  }
  std::error_code error;
  fs::create_hard_link(staged, path, error);  // unlike a rename it replaces nothing
  std::error_code ignored;
  fs::remove(staged, ignored);
  if (error == std::errc::file_exists) return refuse(ErrorCode::kBadRequest, path + " appeared meanwhile");
  if (error) throw Error("create " + path + ": " + error.message());
  return ok_status();
}

Result<int> calibrate_to_file(const conversion::CalibrateCommand& command, std::ostream& out) {
  if (Status status = check_command(command); !status.ok()) return status.refusal();
  Result<std::string> text = checkpoint::read_text_file(command.text, tokenizer::Encoder::kTextBytesMax);
  if (!text.ok()) return text.refusal();
  const Result<ActivationRanges> ranges = calibrate(
      {.checkpoint = command.checkpoint, .text = std::move(text).value(), .tokens = command.tokens, .goes_on = [] {
         return !shutdown_requested();
       }});
  if (!ranges.ok()) return ranges.refusal();
  if (Status status = write_whole(command.output, ranges_file(ranges.value())); !status.ok()) return status.refusal();
  out << command.output << ": ranges of " << ranges.value().model << ", " << ranges.value().layers.size()
      << " layers, over " << ranges.value().tokens << " tokens\n";
  return 0;
}

}  // namespace

int run_calibrate(const conversion::CalibrateCommand& command, std::ostream& out, std::ostream& err) {
  return exit_status_of([&] { return calibrate_to_file(command, out); }, err);
}

}  // namespace optserve::converter
