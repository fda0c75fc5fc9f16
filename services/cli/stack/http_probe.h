// Asks a process of optserve over HTTP for its state or metrics.
#pragma once

#include <optional>
#include <string>

#include "base/clock.h"

namespace optserve::cli {

struct HttpAnswer {
  int status = 0;
  std::string body;
};

// GET http://127.0.0.1:port/path. Nothing if the whole answer does not arrive within `timeout`.
std::optional<HttpAnswer> http_get(int port, const std::string& path, milliseconds timeout, const Clock& clock);

}  // namespace optserve::cli
