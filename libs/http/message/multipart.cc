#include "http/message/multipart.h"

#include <algorithm>

#include "http/message/headers.h"

namespace optserve::http {
namespace {

constexpr size_t kPartHeadBytesMax = 8 << 10;
constexpr size_t kBoundaryBytesMax = 70;  // RFC 2046
constexpr int kPartsMax = 32;

// A parameter of a header's value: NAME=value or NAME="value", in which a backslash quotes the next character.
std::optional<std::string> parameter_of(std::string_view value, std::string_view name) {
  size_t at = value.find(';');
  while (at != std::string_view::npos) {
    std::string_view rest = trimmed(value.substr(at + 1));
    const size_t equals = rest.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    const std::string_view found = trimmed(rest.substr(0, equals));
    rest.remove_prefix(equals + 1);
    std::string text;
    size_t used = 0;
    if (rest.starts_with('"')) {
      for (used = 1; used < rest.size() && rest[used] != '"'; ++used) {
        if (rest[used] == '\\' && used + 1 < rest.size()) ++used;
        text += rest[used];
      }
      if (used == rest.size()) return std::nullopt;
    } else {
      used = std::min(rest.find(';'), rest.size());
      text = trimmed(rest.substr(0, used));
    }
    if (equal_ignoring_case(found, name)) return text;
    const auto begin = static_cast<size_t>(rest.data() - value.data());
    at = value.find(';', begin + used);
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> multipart_boundary(std::string_view content_type) {
  if (!equal_ignoring_case(trimmed(content_type.substr(0, content_type.find(';'))), "multipart/form-data")) {
    return std::nullopt;
  }
  std::optional<std::string> boundary = parameter_of(content_type, "boundary");
  if (!boundary || boundary->empty() || boundary->size() > kBoundaryBytesMax) return std::nullopt;
  return boundary;
}

MultipartReader::MultipartReader(std::string_view boundary, FormParts& parts)
    : delimiter_("\r\n--" + std::string(boundary)), parts_(parts), waiting_("\r\n") {}

bool MultipartReader::fail(std::string message) {
  state_ = State::kFailed;
  message_ = std::move(message);
  return false;
}

bool MultipartReader::feed(std::string_view bytes) {
  if (state_ == State::kEnd) return true;
  if (state_ == State::kFailed) return false;
  waiting_ += bytes;
  bool goes_on = true;
  while (goes_on) {
    switch (state_) {
      case State::kBegin:
        goes_on = read_begin();
        break;
      case State::kAfterBoundary:
        goes_on = read_after_boundary();
        break;
      case State::kHead:
        goes_on = read_head();
        break;
      case State::kContent:
        goes_on = read_content();
        break;
      case State::kEnd:
      case State::kFailed:
        goes_on = false;
    }
  }
  return state_ != State::kFailed;
}

// The first boundary is the beginning of the body: nobody sends a preamble, so none is skipped.
bool MultipartReader::read_begin() {
  const size_t count = std::min(waiting_.size(), delimiter_.size());
  if (waiting_.compare(0, count, delimiter_, 0, count) != 0) {
    return fail("the form does not begin with the boundary that Content-Type names");
  }
  if (count < delimiter_.size()) return false;
  waiting_.erase(0, count);
  state_ = State::kAfterBoundary;
  return true;
}

bool MultipartReader::read_after_boundary() {
  if (waiting_.size() < 2) return false;
  if (waiting_.starts_with("--")) {
    state_ = State::kEnd;
    waiting_.clear();
    return false;
  }
  if (!waiting_.starts_with("\r\n")) return fail("a boundary of the form is followed by something else");
  if (++num_parts_ > kPartsMax) return fail("the form has more than " + std::to_string(kPartsMax) + " parts");
  waiting_.erase(0, 2);
  state_ = State::kHead;
  return true;
}

bool MultipartReader::read_head() {
  const size_t end = waiting_.find("\r\n\r\n");
  if (end == std::string::npos && waiting_.size() <= kPartHeadBytesMax) return false;
  if (end > kPartHeadBytesMax) return fail("the header of a part of the form is too large");
  std::string_view rest = std::string_view(waiting_).substr(0, end + 2);
  std::optional<std::string> name, file;
  while (!rest.empty()) {
    const size_t line_end = rest.find("\r\n");
    const std::string_view line = rest.substr(0, line_end);
    rest.remove_prefix(line_end + 2);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || !equal_ignoring_case(line.substr(0, colon), "Content-Disposition")) continue;
    name = parameter_of(line, "name");
    file = parameter_of(line, "filename");
  }
  if (!name) return fail("a part of the form has no name");
  waiting_.erase(0, end + 4);
  // A boundary after empty content shares its line end with the head.
  waiting_.insert(0, "\r\n");
  state_ = State::kContent;
  skip_ = 2;
  return parts_.on_part(*name, file.value_or("")) || fail("");
}

bool MultipartReader::read_content() {
  const size_t found = waiting_.find(delimiter_);
  // Bytes that may be the beginning of a delimiter wait for the rest of it.
  const size_t safe =
      found != std::string::npos ? found : waiting_.size() - std::min(waiting_.size(), delimiter_.size() - 1);
  const size_t skipped = std::min(skip_, safe);
  skip_ -= skipped;
  if (safe > skipped && !parts_.on_content(std::string_view(waiting_).substr(skipped, safe - skipped))) return fail("");
  if (found == std::string::npos) {
    waiting_.erase(0, safe);
    return false;
  }
  waiting_.erase(0, found + delimiter_.size());
  state_ = State::kAfterBoundary;
  return true;
}

}  // namespace optserve::http
