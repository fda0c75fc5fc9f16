// Takes the body of a request as it arrives, for bodies that are too large for memory.
#pragma once

#include <string>
#include <string_view>

namespace optserve::http {

// Belongs to its request, and is destroyed with it.
class BodySink {
 public:
  virtual ~BodySink() = default;
  // Takes the next bytes. If it returns why the request is refused, no more bytes come.
  struct Refused {
    int status = 400;
    std::string message{};
  };
  virtual bool take(std::string_view bytes, Refused& why) = 0;
  // True if it has enough for now: nothing more is read from the peer until the sink has called its `on_room`
  // (RouteLimits::body_sink).
  virtual bool is_full() const { return false; }
};

}  // namespace optserve::http
