#include "converter/commands/one_shot.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>

#include "base/format_names.h"
#include "base/input_check.h"
#include "base/shutdown.h"
#include "base/time_left.h"
#include "converter/commands/exit_status.h"
#include "converter/commands/inspect.h"

namespace optserve::converter {
namespace {

using Clock = std::chrono::steady_clock;
constexpr uint64_t kMiB = 1 << 20;

// One line that is rewritten on a terminal; else a line every five seconds.
class ProgressLine {
 public:
  ProgressLine(std::ostream& err, bool show) : err_(err), show_(show), is_terminal_(isatty(STDERR_FILENO) == 1) {}
  bool operator()(const ConvertProgress& progress) {
    const Clock::time_point now = Clock::now();
    const bool is_last = progress.tensor.empty();
    const std::string left = time_left_.text(progress.bytes_done, progress.bytes_total, now);
    if (!first_bytes_) first_bytes_ = progress.bytes_done;
    const auto pause = std::chrono::milliseconds(is_terminal_ ? 200 : 5000);
    if (show_ && (is_last ? is_terminal_ : now - last_ >= pause)) {
      last_ = now;
      const double seconds = std::chrono::duration<double>(now - start_).count();
      const uint64_t done = progress.bytes_done - std::min(progress.bytes_done, *first_bytes_);
      const double rate = seconds > 0 ? static_cast<double>(done / kMiB) / seconds : 0;
      const uint64_t percent = progress.bytes_total == 0 ? 100 : progress.bytes_done * 100 / progress.bytes_total;
      err_ << (is_terminal_ ? "\r\x1b[K" : "") << percent << "% of " << progress.bytes_total / kMiB << " MiB, "
           << static_cast<uint64_t>(rate) << " MiB/s, " << (left.empty() ? "" : left + ", ") << progress.tensor
           << (is_terminal_ && !is_last ? "" : "\n") << std::flush;
    }
    return !shutdown_requested();
  }

 private:
  std::ostream& err_;
  bool show_;
  bool is_terminal_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = start_;
  std::optional<uint64_t> first_bytes_;  // were done before
  TimeLeft time_left_;
};

}  // namespace

Result<ReaderSettings> to_settings(const ReaderOptions& options) {
  const auto mode = parse_sandbox_mode(options.sandbox);
  if (!mode)
    return refuse(ErrorCode::kBadRequest, "sandbox is '" + options.sandbox + "', expected require, try or off");
  if (options.reader_seconds < 1)
    return refuse(ErrorCode::kBadRequest,
                  "reader-seconds is " + std::to_string(options.reader_seconds) + ", must be at least 1");
  return ReaderSettings{*mode, options.reader_seconds, ""};
}

Result<ConvertOptions> to_options(const ConvertCommand& command) {
  ConvertOptions options;
  options.input = command.input;
  options.output = command.output;
  options.name = command.name;
  options.smooth_ranges = command.smooth;
  options.smooth_alpha = command.smooth_alpha;
  options.shards = command.shards;
  options.num_heads = command.num_heads;
  options.vocab_file = command.vocab_file;
  options.merges_file = command.merges_file;
  options.allow_nonfinite = command.allow_nonfinite;
  options.check_source = command.check_source;
  options.restart = command.restart;
  options.pass_mib_max = command.pass_mib_max;
  if (command.input.empty() || command.output.empty())
    return refuse(ErrorCode::kBadRequest, "both an input and an output are needed");
  if (command.shards < 0 || command.num_heads < 0)
    return refuse(ErrorCode::kBadRequest, "shards and heads must not be negative");
  constexpr int64_t kPassMibMax = int64_t{1} << 40;
  if (command.pass_mib_max < 0 || command.pass_mib_max > kPassMibMax)
    return refuse(ErrorCode::kBadRequest, "pass-mib-max is " + std::to_string(command.pass_mib_max) +
                                              ", expected 0 to " + std::to_string(kPassMibMax));
  if (command.dtype != "keep") {
    options.dtype = tensor::parse_weight_dtype(command.dtype);
    if (!options.dtype)
      return refuse(ErrorCode::kBadRequest, "dtype is '" + command.dtype + "', expected keep, fp32, fp16 or bf16");
  }
  if (command.quantize != "none") {
    options.quantisation = find_quantisation(command.quantize);
    if (!options.quantisation)
      return refuse(ErrorCode::kBadRequest, "quantize is '" + command.quantize + "', expected " +
                                                one_of_text(with_words({"none"}, kQuantisationNames)));
  }
  Result<ReaderSettings> reader = to_settings(command.reader);
  if (!reader.ok()) return reader.refusal();
  options.reader = std::move(reader).value();
  return options;
}

Result<ExportOptions> to_options(const ExportCommand& command) {
  ExportOptions options;
  options.input = command.input;
  options.output = command.output;
  options.parts = command.parts;
  options.check_source = command.check_source;
  if (command.input.empty() || command.output.empty())
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

int run_convert(const ConvertCommand& command, std::ostream& out, std::ostream& err) {
  const auto run = [&]() -> Result<int> {
    Result<ConvertOptions> options = to_options(command);
    if (!options.ok()) return options.refusal();
    ProgressLine progress(err, command.show_progress);
    options.value().on_progress = [&](const ConvertProgress& at) { return progress(at); };
    const Result<ConvertResult> result = convert(options.value());
    if (!result.ok()) return result.refusal();
    const ConvertResult& done = result.value();
    for (const std::string& warning : done.warnings) err << "warning: " << warning << "\n";
    if (done.nonfinite > 0) err << "warning: " << done.nonfinite << " weights are NaN or infinite\n";
    out << command.output << ": " << done.config.name << ", " << done.parameters << " parameters in "
        << formats_text(done) << ", " << done.shards << " shards, "
        << (done.existed ? "written before" : std::to_string(done.bytes_written) + " bytes") << ", from " << done.layout
        << (done.has_tokenizer ? ", with tokenizer" : "") << "\n";
    return 0;
  };
  return exit_status_of(run, err);
}

int run_export(const ExportCommand& command, std::ostream& out, std::ostream& err) {
  const auto run = [&]() -> Result<int> {
    Result<ExportOptions> options = to_options(command);
    if (!options.ok()) return options.refusal();
    ProgressLine progress(err, command.show_progress);
    options.value().on_progress = [&](const ConvertProgress& at) { return progress(at); };
    const Result<ExportResult> result = export_checkpoint(options.value());
    if (!result.ok()) return result.refusal();
    const ExportResult& done = result.value();
    out << command.output << ": " << done.config.name << " for " << command.format << " in "
        << tensor::dtype_name(done.dtype) << ", " << done.files << (done.files == 1 ? " file, " : " files, ")
        << done.bytes_written << " bytes" << (done.has_tokenizer ? ", with tokenizer" : "") << "\n";
    return 0;
  };
  return exit_status_of(run, err);
}

int run_inspect(const InspectCommand& command, std::ostream& out, std::ostream& err) {
  const auto run = [&]() -> Result<int> {
    const Result<ReaderSettings> reader = to_settings(command.reader);
    if (!reader.ok()) return reader.refusal();
    const Result<nlohmann::json> description = inspect(command.path, reader.value());
    if (!description.ok()) return description.refusal();
    if (command.as_json)
      out << description.value().dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
    else
      out << inspect_text(description.value(), command.with_tensors);
    return description.value().contains("problem") ? 1 : 0;
  };
  return exit_status_of(run, err);
}

}  // namespace optserve::converter
