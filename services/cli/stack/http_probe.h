// Asks a process of ours over HTTP how it is.
#pragma once

#include <optional>
#include <string>

#include "base/clock.h"

namespace optserve::cli {

struct HttpAnswer {
  int status = 0;
  std::string body;
};

// GET http://127.0.0.1:port/path; nothing if there is no whole answer within `timeout`.
std::optional<HttpAnswer> http_get(int port, const std::string& path, milliseconds timeout);

}  // namespace optserve::cli
