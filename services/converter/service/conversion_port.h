// The seam between the converter's message side and the thread that converts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/error.h"
#include "protocol/message_types.h"

namespace optserve::converter {

struct ConversionState {
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;
};

// How a conversion ended.
struct ConversionEnd {
  std::optional<Refusal> refused;
  bool transient = false;  // the environment failed: another attempt may succeed
  std::string summary;     // what was written, if not refused
};

// One conversion at a time.
class ConversionPort {
 public:
  virtual ~ConversionPort() = default;
  // Only when idle.
  virtual void start(const protocol::ConvertSpec& spec) = 0;
  // Asks the running conversion to end; its end is still reported.
  virtual void cancel() = 0;
  virtual bool is_idle() const = 0;  // nothing runs and no end waits to be taken
  virtual ConversionState state() const = 0;
  virtual std::optional<ConversionEnd> take_end() = 0;  // once per conversion
};

}  // namespace optserve::converter
