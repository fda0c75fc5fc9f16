// Takes the body of a request as it comes, for bodies that are too large for memory.
#pragma once

#include <string>
#include <string_view>

namespace optserve::http {

// Belongs to its request, and is destroyed with it.
class BodySink {
 public:
  virtual ~BodySink() = default;
  // Takes the next bytes. Nothing, or why the request is refused: then no more bytes come.
  struct Refused {
    int status = 400;
    std::string message{};
  };
  virtual bool take(std::string_view bytes, Refused& why) = 0;
  // It has enough for now: the peer is not read until it has called its `on_room` (RouteLimits::body_sink).
  virtual bool is_full() const { return false; }
};

}  // namespace optserve::http
