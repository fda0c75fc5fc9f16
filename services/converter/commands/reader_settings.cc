#include "converter/commands/reader_settings.h"

#include "base/input_check.h"

namespace optserve::converter {

Result<ReaderSettings> settings_of(const conversion::ReaderOptions& options) {
  if (Status status = check_choice("sandbox", options.sandbox, {"require", "try", "off"}); !status.ok()) {
    return status.refusal();
  }
  if (Status status = check_range("reader-seconds", options.reader_seconds, 1, INT32_MAX); !status.ok()) {
    return status.refusal();
  }
  return ReaderSettings{*parse_sandbox_mode(options.sandbox), options.reader_seconds, ""};
}

}  // namespace optserve::converter
