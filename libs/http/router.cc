#include "http/router.h"

#include <algorithm>
#include <optional>

#include "base/check.h"

namespace optserve::http {
namespace {

using Parameters = std::vector<std::pair<std::string, std::string>>;

bool is_parameter(const std::string& segment) { return segment.size() > 2 && segment.front() == '{'; }
bool takes_rest(const std::string& segment) { return is_parameter(segment) && segment.ends_with("...}"); }

// 0: text, 1: parameter, 2: the rest of a path. Patterns are tried in this order.
int kind_of(const std::string& segment) { return takes_rest(segment) ? 2 : is_parameter(segment) ? 1 : 0; }

std::string name_of(const std::string& segment) {
  return segment.substr(1, segment.size() - (takes_rest(segment) ? 5 : 2));
}

std::optional<Parameters> fit(const std::vector<std::string>& pattern, const std::vector<std::string>& path) {
  Parameters parameters;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (takes_rest(pattern[i])) {
      std::string rest;
      for (size_t j = i; j < path.size(); ++j) rest += (j > i ? "/" : "") + path[j];
      parameters.emplace_back(name_of(pattern[i]), rest);
      return parameters;
    }
    if (i >= path.size()) return std::nullopt;
    if (is_parameter(pattern[i])) {
      if (path[i].empty()) return std::nullopt;
      parameters.emplace_back(name_of(pattern[i]), path[i]);
    } else if (pattern[i] != path[i]) {
      return std::nullopt;
    }
  }
  if (path.size() > pattern.size()) return std::nullopt;
  return parameters;
}

}  // namespace

void Router::add(Route route) {
  const auto target = parse_target(route.pattern);
  check(target && route.handler, "a route has a pattern and a handler: " + route.pattern);
  for (const auto& entry : entries_) {
    check(entry->route.method != route.method || entry->route.pattern != route.pattern,
          "a route is added once: " + route.pattern);
  }
  auto entry = std::make_unique<Entry>(Entry{std::move(route), target->segments});
  const auto place = std::find_if(entries_.begin(), entries_.end(), [&](const auto& other) {
    return std::lexicographical_compare(
        entry->segments.begin(), entry->segments.end(), other->segments.begin(), other->segments.end(),
        [](const std::string& a, const std::string& b) { return kind_of(a) < kind_of(b); });
  });
  entries_.insert(place, std::move(entry));
}

Router::Match Router::find(std::string_view method, const Target& target) const {
  for (const auto& entry : entries_) {
    const Route& route = entry->route;
    if (route.method != method && !(method == "HEAD" && route.method == "GET")) continue;
    if (auto parameters = fit(entry->segments, target.segments)) return {&route, std::move(*parameters), {}};
  }
  return {nullptr, {}, allowed(target)};
}

std::string Router::allowed(const Target& target) const {
  std::vector<std::string> methods;
  for (const auto& entry : entries_) {
    if (!fit(entry->segments, target.segments)) continue;
    methods.push_back(entry->route.method);
    if (entry->route.method == "GET") methods.push_back("HEAD");
  }
  if (methods.empty()) return {};
  methods.push_back("OPTIONS");
  std::sort(methods.begin(), methods.end());
  methods.erase(std::unique(methods.begin(), methods.end()), methods.end());
  std::string list;
  for (const std::string& method : methods) list += (list.empty() ? "" : ", ") + method;
  return list;
}

std::vector<std::pair<std::string, std::string>> Router::names() const {
  std::vector<std::pair<std::string, std::string>> names;
  for (const auto& entry : entries_) names.emplace_back(entry->route.method, entry->route.pattern);
  return names;
}

}  // namespace optserve::http
