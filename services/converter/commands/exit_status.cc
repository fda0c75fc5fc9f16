#include "converter/commands/exit_status.h"

#include <ostream>

namespace optserve::converter {

int exit_status_of(const std::function<Result<int>()>& command, std::ostream& err) {
  constexpr int kRefused = 1, kEnvironmentFailed = 2, kCancelled = 130;
  try {
    const Result<int> status = command();
    if (status.ok()) return status.value();
    err << "error: " << status.refusal().message << "\n";
    return status.refusal().code == ErrorCode::kCancelled ? kCancelled : kRefused;
  } catch (const Error& error) {
    err << "error: " << error.what() << "\n";
    return kEnvironmentFailed;
  }
}

}  // namespace optserve::converter
