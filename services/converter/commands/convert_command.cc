#include "converter/commands/convert_command.h"

#include <algorithm>
#include <ostream>
#include <span>

#include "base/format_names.h"
#include "base/input_check.h"
#include "base/shutdown.h"
#include "converter/commands/reader_settings.h"
#include "converter/commands/terminal.h"
#include "converter/verify/verify.h"

namespace optserve::converter {
namespace {

constexpr size_t kFaultsPrinted = 10;

Result<int> convert_command(ConvertOptions options, const conversion::ConvertCommand& command, const Clock& clock,
                            std::ostream& out, std::ostream& err) {
  TerminalProgress terminal(err, clock, command.show_progress);
  options.on_progress = [&](const ConvertProgress& progress) { return terminal(progress); };
  const Result<ConvertResult> result = convert(options, clock);
  if (!result.ok()) return result.refusal();
  const ConvertResult& done = result.value();
  for (const std::string& warning : done.warnings) err << "optserve: warning: " << warning << "\n";
  if (done.nonfinite > 0) err << "optserve: warning: " << done.nonfinite << " weights are NaN or infinite\n";
  out << summary_text(options.output, done) << (done.has_tokenizer ? ", with tokenizer" : "") << "\n";
  return 0;
}

Result<int> verify_command(ConvertOptions options, std::ostream& out, std::ostream& err) {
  options.on_progress = [](const ConvertProgress&) { return !shutdown_requested(); };
  const Result<VerifyReport> report = verify(options);
  if (!report.ok()) return report.refusal();
  out << verify_text(report.value());
  if (report.value().passed()) {
    out << options.output << ": verified\n";
    return 0;
  }
  const std::vector<std::string> faults = report.value().faults();
  for (size_t i = 0; i < std::min(faults.size(), kFaultsPrinted); ++i) err << "optserve: " << faults[i] << "\n";
  if (faults.size() > kFaultsPrinted) err << "optserve: and " << faults.size() - kFaultsPrinted << " more\n";
  err << "optserve: " << options.output << " is not what its source says; do not use it\n";
  return 1;
}

size_t place_in(std::span<const std::string_view> words, std::string_view word) {
  return static_cast<size_t>(std::ranges::find(words, word) - words.begin());
}

}  // namespace

Result<ConvertOptions> options_of(const conversion::ConvertCommand& command) {
  constexpr auto kDtypes = with_words({"keep"}, kDtypeNames);
  constexpr auto kQuantisations = with_words({"none"}, kQuantisationNames);
  if (Status status = check_choice("dtype", command.dtype, kDtypes); !status.ok()) return status.refusal();
  if (Status status = check_choice("quantize", command.quantize, kQuantisations); !status.ok()) return status.refusal();
  if (Status status = check_choice("head", command.head_word, conversion::kOutputHeadNames); !status.ok()) {
    return status.refusal();
  }
  if (Status status = check_choice("prompt-tokens", command.prompt_tokens_word, conversion::kPromptTokensNames);
      !status.ok()) {
    return status.refusal();
  }
  Result<ReaderSettings> reader = settings_of(command.reader);
  if (!reader.ok()) return reader.refusal();
  ConvertOptions options{command,
                         parse_weight_dtype(command.dtype),
                         quant::find_quantisation(command.quantize),
                         std::move(reader).value(),
                         {}};
  options.head = static_cast<conversion::OutputHead>(place_in(conversion::kOutputHeadNames, command.head_word));
  options.prompt_tokens =
      static_cast<conversion::PromptTokens>(place_in(conversion::kPromptTokensNames, command.prompt_tokens_word));
  options.has_tokenizer = command.tokenizer != "none";
  return options;
}

int run_convert(const conversion::ConvertCommand& command, const Clock& clock, std::ostream& out, std::ostream& err) {
  const auto run = [&]() -> Result<int> {
    const Result<ConvertOptions> options = options_of(command);
    if (!options.ok()) return options.refusal();
    Result<int> status = convert_command(options.value(), command, clock, out, err);
    if (!status.ok() || !command.verify) return status;
    return verify_command(options.value(), out, err);
  };
  return exit_status_of(run, err);
}

}  // namespace optserve::converter
