#include "base/program.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/exit_status.h"
#include "base/first_process.h"
#include "base/log.h"
#include "base/shutdown.h"
#include "base/termination.h"

namespace optserve {

void print_failure(const ProgramFailure& failure, bool as_json) {
  if (!as_json) {
    std::fprintf(stderr, "%s: %s\n", failure.program.c_str(), failure.message.c_str());
    return;
  }
  nlohmann::ordered_json error;
  error["code"] = failure.code;
  error["message"] = failure.message;
  error["exit_status"] = failure.exit_status;
  const nlohmann::ordered_json document{{"error", std::move(error)}};
  std::printf("%s\n", document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

int run_service(const ServiceFrame& frame, const std::function<int()>& body) {
  if (const int status = frame.parser.parse(frame.argc, frame.argv); status >= 0) return status;
  return run_reported([&] {
    leave_first_process();
    install_service_signals();
    start_logging(frame.log_name, frame.common, frame.parser);
    return body();
  });
}

int run_reported(const std::function<int()>& body) {
  try {
    return body();
  } catch (const ConfigurationError& error) {
    log_error("stopped", {{"cause", error.what()}});
    write_termination_message(error.what());
    return kExitConfiguration;
  } catch (const std::exception& error) {
    log_error("stopped", {{"cause", error.what()}});
    write_termination_message(error.what());
    return kExitFailed;
  }
}

}  // namespace optserve
