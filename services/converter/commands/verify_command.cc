#include "converter/commands/verify_command.h"

#include <algorithm>
#include <ostream>

#include "base/shutdown.h"
#include "converter/commands/exit_status.h"
#include "converter/verify/verify.h"

namespace optserve::converter {
namespace {

constexpr size_t kDifferencesShown = 10;

int report_faults(const std::vector<std::string>& faults, const std::string& folder, std::ostream& err) {
  for (size_t i = 0; i < std::min(faults.size(), kDifferencesShown); ++i) err << "error: " << faults[i] << "\n";
  if (faults.size() > kDifferencesShown) err << "error: and " << faults.size() - kDifferencesShown << " more\n";
  err << "error: " << folder << " is not what its source says; do not use it\n";
  return 1;
}

}  // namespace

int run_verify(const ConvertCommand& command, std::ostream& out, std::ostream& err) {
  const auto run = [&]() -> Result<int> {
    Result<ConvertOptions> options = to_options(command);
    if (!options.ok()) return options.refusal();
    options.value().on_progress = [](const ConvertProgress&) { return !shutdown_requested(); };
    const Result<VerifyReport> report = verify(options.value());
    if (!report.ok()) return report.refusal();
    out << verify_text(report.value());
    if (!report.value().passed()) return report_faults(report.value().faults(), command.output, err);
    out << command.output << ": verified\n";
    return 0;
  };
  return exit_status_of(run, err);
}

}  // namespace optserve::converter
