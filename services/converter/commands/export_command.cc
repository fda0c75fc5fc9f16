#include "converter/commands/export_command.h"

#include <ostream>

#include "base/input_check.h"
#include "converter/commands/terminal.h"
#include "converter/export/export.h"

namespace optserve::converter {
namespace {

Result<ExportOptions> options_of(const conversion::ExportCommand& command) {
  constexpr int64_t kFileMbMax = 1'000'000;
  if (command.input.empty() || command.output.empty()) {
    return refuse(ErrorCode::kBadRequest, "a checkpoint and a folder to create are needed");
  }
  if (Status status = check_choice("format", command.format, {"huggingface", "metaseq"}); !status.ok()) {
    return status.refusal();
  }
  if (Status status = check_range("file-mb-max", command.file_mb_max, 1, kFileMbMax); !status.ok()) {
    return status.refusal();
  }
  return ExportOptions{
      command, *parse_export_format(command.format), static_cast<uint64_t>(command.file_mb_max) * 1'000'000, {}};
}

}  // namespace

int run_export(const conversion::ExportCommand& command, const Clock& clock, std::ostream& out, std::ostream& err) {
  const auto run = [&]() -> Result<int> {
    Result<ExportOptions> options = options_of(command);
    if (!options.ok()) return options.refusal();
    TerminalProgress terminal(err, clock, command.show_progress);
    options.value().on_progress = [&](const ConvertProgress& progress) { return terminal(progress); };
    const Result<ExportResult> result = export_checkpoint(options.value());
    if (!result.ok()) return result.refusal();
    const ExportResult& done = result.value();
    out << options.value().output << ": " << done.config.name << " for " << command.format << " in "
        << dtype_name(done.dtype) << ", " << done.files << (done.files == 1 ? " file, " : " files, ")
        << done.bytes_written << " bytes" << (done.has_tokenizer ? ", with tokenizer" : "") << "\n";
    return 0;
  };
  return exit_status_of(run, err);
}

}  // namespace optserve::converter
