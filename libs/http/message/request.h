// A whole request, as a handler gets it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http/message/body_sink.h"
#include "http/message/headers.h"
#include "http/message/target.h"

namespace optserve::http {

struct Request {
  std::string method;
  Target target;
  int minor_version = 1;  // of HTTP/1.x
  Headers headers;
  std::string body;                                             // of a chunked request without its framing
  std::shared_ptr<BodySink> sink{};                             // has the body if the route has sinks: see RouteLimits
  std::string peer;                                             // numeric address of the other end, without its port
  std::string route;                                            // the pattern that matched; empty: none
  std::vector<std::pair<std::string, std::string>> parameters;  // of the route's pattern
  std::string id;                                               // for the owner: see ServerHooks::on_request
  std::vector<std::pair<std::string, std::string>> notes;       // for the owner: what its log says of the request

  void note(std::string_view name, std::string_view value) { notes.emplace_back(name, value); }
  // Empty if there is no note of this name.
  std::string_view note(std::string_view name) const {
    for (const auto& [key, value] : notes) {
      if (key == name) return value;
    }
    return {};
  }

  // A parameter of the route's pattern, such as "id" of "/v1/jobs/{id}". Empty if the pattern does not have it.
  std::string_view parameter(std::string_view name) const {
    for (const auto& [key, value] : parameters) {
      if (key == name) return value;
    }
    return {};
  }
  // The first field of this name in the query; nullptr if there is none.
  const std::string* query(std::string_view name) const {
    for (const auto& [key, value] : target.query) {
      if (key == name) return &value;
    }
    return nullptr;
  }
};

}  // namespace optserve::http
