#include "http/message/target.h"

#include <algorithm>

#include "base/hex.h"
#include "http/message/headers.h"

namespace optserve::http {
namespace {

// Removes the part before the first `mark`, and the mark, from `text`, and returns that part.
std::string_view take_until(std::string_view& text, char mark) {
  const size_t at = text.find(mark);
  const std::string_view part = text.substr(0, at);
  text.remove_prefix(at == std::string_view::npos ? text.size() : at + 1);
  return part;
}

// Everything after the scheme and the host of "http://host/path", which may be empty.
std::optional<std::string_view> without_host(std::string_view text) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!equal_ignoring_case(text.substr(0, scheme.size()), scheme)) continue;
    text.remove_prefix(scheme.size());
    const size_t end = text.find_first_of("/?");
    if (end == 0) return std::nullopt;
    return end == std::string_view::npos ? std::string_view("/") : text.substr(end);
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> percent_decoded(std::string_view text, bool is_query) {
  std::string decoded;
  decoded.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && is_query) {
      decoded += ' ';
    } else if (text[i] == '%') {
      const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
      const int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
      if (low < 0 || (high == 0 && low == 0)) return std::nullopt;
      decoded += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

std::optional<Target> parse_target(std::string_view text) {
  const bool is_visible =
      std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) > 0x20 && c != 0x7f; });
  if (text.empty() || !is_visible) return std::nullopt;
  if (text == "*") return Target{.path = "*", .segments = {}, .query = {}};
  if (text[0] != '/') {
    const auto rest = without_host(text);
    if (!rest) return std::nullopt;
    text = *rest;
  }
  text = text.substr(0, text.find('#'));
  Target target;
  std::string_view path = take_until(text, '?');
  if (path.empty()) path = "/";
  target.path = path;
  path.remove_prefix(1);
  while (!path.empty()) {
    auto segment = percent_decoded(take_until(path, '/'), false);
    if (!segment) return std::nullopt;
    target.segments.push_back(std::move(*segment));
  }
  while (!text.empty()) {
    std::string_view pair = take_until(text, '&');
    if (pair.empty()) continue;
    auto name = percent_decoded(take_until(pair, '='), true);
    auto value = percent_decoded(pair, true);
    if (!name || !value) return std::nullopt;
    target.query.emplace_back(std::move(*name), std::move(*value));
  }
  return target;
}

}  // namespace optserve::http
