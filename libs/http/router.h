// Which handler a request goes to. Patterns are paths whose segments are text or parameters: "/v1/jobs/{id}/events". A
// last segment "{name...}" takes the rest of the path, slashes included.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "http/message/request.h"
#include "http/message/target.h"

namespace optserve::http {

class Exchange;

// Runs on the server's thread, once for each request. It answers now, or keeps the exchange and answers later.
using Handler = std::function<void(std::shared_ptr<Exchange>)>;

struct RouteLimits {
  size_t body_bytes_max = 64 << 10;
  // Makes a sink that takes the body of a request as it arrives, instead of Request::body. A sink that was full calls
  // `on_room`, from any thread, when it has room again; a needless call does no harm.
  std::function<std::shared_ptr<BodySink>(const Request& request, std::function<void()> on_room)> body_sink{};
  milliseconds request_timeout{0};  // for a whole request; 0: ServerLimits::request_timeout
};

struct Route {
  std::string method;
  std::string pattern;
  Handler handler;
  RouteLimits limits;
};

class Router {
 public:
  // A GET route serves HEAD too. Adding the same method and pattern twice is a bug.
  void add(Route route);

  struct Match {
    const Route* route = nullptr;
    std::vector<std::pair<std::string, std::string>> parameters;
    std::string allow;  // if there is no route: the methods of the path, as Allow lists them; empty if there are none
  };
  // If several patterns match, the one with text at the first segment in which they differ wins.
  Match find(std::string_view method, const Target& target) const;
  // Method and pattern of each route.
  std::vector<std::pair<std::string, std::string>> names() const;
  // The methods of a path; empty if no pattern matches. For OPTIONS.
  std::string allowed(const Target& target) const;

 private:
  struct Entry {
    Route route;
    std::vector<std::string> segments;
  };

  std::vector<std::unique_ptr<Entry>> entries_;  // the most specific pattern first
};

}  // namespace optserve::http
