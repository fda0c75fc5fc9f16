#include "converter/commands/export_command.h"

#include <ostream>

#include "base/shutdown.h"
#include "converter/commands/exit_status.h"
#include "converter/commands/progress_line.h"

namespace optserve::converter {
namespace {

Result<ExportOptions> options_of(const ExportCommand& command) {
  ExportOptions options = command.options;
  if (options.input.empty() || options.output.empty())
    return refuse(ErrorCode::kBadRequest, "a checkpoint and a folder to create are needed");
  const auto format = parse_export_format(command.format);
  if (!format)
    return refuse(ErrorCode::kBadRequest, "format is '" + command.format + "', expected huggingface or metaseq");
  options.format = *format;
  constexpr int64_t kFileMbMax = 1'000'000;
  if (command.file_mb_max < 1 || command.file_mb_max > kFileMbMax)
    return refuse(ErrorCode::kBadRequest, "file-mb-max is " + std::to_string(command.file_mb_max) + ", expected 1 to " +
                                              std::to_string(kFileMbMax));
  options.file_bytes_max = static_cast<uint64_t>(command.file_mb_max) * 1'000'000;
  return options;
}

}  // namespace

int run_export(const ExportCommand& command, const Clock& clock, std::ostream& out, std::ostream& err) {
  const auto run = [&]() -> Result<int> {
    Result<ExportOptions> options = options_of(command);
    if (!options.ok()) return options.refusal();
    ProgressLine line(err, clock, command.show_progress);
    options.value().on_progress = [&](const ConvertProgress& progress) {
      line.show(progress);
      return !shutdown_requested();
    };
    const Result<ExportResult> result = export_checkpoint(options.value());
    if (!result.ok()) return result.refusal();
    const ExportResult& done = result.value();
    out << options.value().output << ": " << done.config.name << " for " << command.format << " in "
        << tensor::dtype_name(done.dtype) << ", " << done.files << (done.files == 1 ? " file, " : " files, ")
        << done.bytes_written << " bytes" << (done.has_tokenizer ? ", with tokenizer" : "") << "\n";
    return 0;
  };
  return exit_status_of(run, err);
}

}  // namespace optserve::converter
