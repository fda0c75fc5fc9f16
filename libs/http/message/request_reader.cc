#include "http/message/request_reader.h"

#include <algorithm>
#include <charconv>

#include "base/check.h"

namespace optserve::http {

void RequestReader::fail(int status, std::string message) {
  state_ = State::kFailed;
  status_ = status;
  message_ = std::move(message);
}

size_t RequestReader::feed(std::string_view bytes) {
  const size_t given = bytes.size();
  while (state_ == State::kHead && !bytes.empty()) {
    // It takes a line at a time, so that nothing is searched twice however small the pieces are.
    const size_t line = bytes.find('\n');
    const size_t count = std::min(line == std::string_view::npos ? bytes.size() : line + 1, limits_.head_bytes_max);
    head_.append(bytes.substr(0, count));
    bytes.remove_prefix(count);
    if (head_ == "\r\n") {  // some clients send an empty line after a body
      head_.clear();
      continue;
    }
    if (!line_ended_ && head_.size() > limits_.target_bytes_max + 64) {  // 64 bytes for the method and the version
      fail(414, "the address is longer than " + std::to_string(limits_.target_bytes_max) + " bytes");
      break;
    }
    line_ended_ = line_ended_ || head_.back() == '\n';
    if (head_.ends_with("\r\n\r\n")) {
      parse_head();
    } else {
      check_head();
    }
  }
  if (state_ == State::kBody) feed_body(bytes);
  return given - bytes.size();
}

void RequestReader::feed_body(std::string_view& bytes) {
  State next = State::kBody;
  if (is_chunked_) {
    switch (chunks_.feed(bytes, request_.body, body_bytes_max_ - sunk_bytes_)) {
      case ChunkedBody::State::kMore:
        break;
      case ChunkedBody::State::kDone:
        next = State::kDone;
        break;
      case ChunkedBody::State::kMalformed:
        return fail(400, "the frame of a chunk is malformed");
      case ChunkedBody::State::kTooLarge:
        return fail(413, "the body is larger than " + std::to_string(body_bytes_max_) + " bytes");
    }
  } else {
    const uint64_t missing = content_length_ - sunk_bytes_ - request_.body.size();
    const size_t count = static_cast<size_t>(std::min<uint64_t>(bytes.size(), missing));
    request_.body.append(bytes.substr(0, count));
    bytes.remove_prefix(count);
    if (count == missing) next = State::kDone;
  }
  if (request_.sink) empty_into_sink();
  if (state_ == State::kBody) state_ = next;
}

void RequestReader::empty_into_sink() {
  BodySink::Refused why;
  sunk_bytes_ += request_.body.size();
  if (!request_.sink->take(request_.body, why)) fail(why.status, std::move(why.message));
  request_.body.clear();
}

void RequestReader::check_head() {
  if (head_.back() == '\n' && !head_.ends_with("\r\n")) {
    fail(400, "a line of the header does not end with CR LF");
  } else if (head_.size() >= limits_.head_bytes_max) {
    fail(431, "the header is larger than " + std::to_string(limits_.head_bytes_max) + " bytes");
  }
}

void RequestReader::parse_head() {
  std::string_view rest = head_;
  if (head_.size() > limits_.head_bytes_max) return check_head();
  const auto next_line = [&rest] {
    const size_t end = rest.find("\r\n");
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end + 2);
    return line;
  };
  if (!parse_request_line(next_line())) return;
  for (std::string_view line = next_line(); !line.empty(); line = next_line()) {
    if (!parse_field(line)) return;
  }
  if (!rest.empty()) return fail(400, "an empty line inside the header");
  if (!parse_framing()) return;
  head_.clear();
  head_.shrink_to_fit();
  state_ = State::kHeadDone;
}

bool RequestReader::parse_request_line(std::string_view line) {
  const auto refused = [this](int status, const char* message) {
    fail(status, message);
    return false;
  };
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last || !is_token(line.substr(0, first))) {
    return refused(400, "expected a request line: method, address, HTTP version");
  }
  const std::string_view version = line.substr(last + 1);
  if (version.size() != 8 || !version.starts_with("HTTP/") || version[6] != '.' || version[5] < '0' ||
      version[5] > '9' || version[7] < '0' || version[7] > '9') {
    return refused(400, "expected a request line: method, address, HTTP version");
  }
  if (version[5] != '1') return refused(505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
  request_.minor_version = version[7] == '0' ? 0 : 1;
  request_.method = line.substr(0, first);
  const std::string_view address = line.substr(first + 1, last - first - 1);
  if (address.size() > limits_.target_bytes_max) {
    fail(414, "the address is longer than " + std::to_string(limits_.target_bytes_max) + " bytes");
    return false;
  }
  auto target = parse_target(address);
  if (!target) return refused(400, "the address of the request is malformed");
  request_.target = std::move(*target);
  return true;
}

bool RequestReader::parse_field(std::string_view line) {
  if (request_.headers.size() >= limits_.fields_max) {
    fail(431, "there are more than " + std::to_string(limits_.fields_max) + " header fields");
    return false;
  }
  const size_t colon = line.find(':');
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = colon == std::string_view::npos ? "" : trimmed(line.substr(colon + 1));
  if (colon == std::string_view::npos || !is_token(name) || !is_field_value(value)) {
    fail(400, "a header field is malformed");
    return false;
  }
  request_.headers.add(name, value);
  return true;
}

bool RequestReader::parse_framing() {
  const Headers& headers = request_.headers;
  const size_t hosts = headers.count("Host");
  if (hosts > 1 || (hosts == 0 && request_.minor_version > 0)) {
    fail(400, "expected one Host field");
    return false;
  }
  if (const std::string* expectation = headers.find("Expect"); expectation != nullptr) {
    if (!equal_ignoring_case(*expectation, "100-continue")) {
      fail(417, "the only expectation that can be met is 100-continue");
      return false;
    }
  }
  const std::string* coding = headers.find("Transfer-Encoding");
  if (coding == nullptr) return parse_content_length();
  if (!equal_ignoring_case(*coding, "chunked") || headers.count("Transfer-Encoding") > 1) {
    fail(501, "the only transfer coding of a request that is known is chunked");
    return false;
  }
  if (headers.count("Content-Length") > 0 || request_.minor_version == 0) {
    fail(400, "a chunked request is one of HTTP/1.1, and has no Content-Length");
    return false;
  }
  is_chunked_ = true;
  return true;
}

bool RequestReader::parse_content_length() {
  const std::string* length = request_.headers.find("Content-Length");
  if (length == nullptr) return true;
  const auto [end, error] = std::from_chars(length->data(), length->data() + length->size(), content_length_);
  if (error != std::errc() || end != length->data() + length->size() || request_.headers.count("Content-Length") > 1) {
    fail(400, "expected one Content-Length, a number of bytes");
    return false;
  }
  return true;
}

void RequestReader::begin_body(size_t body_bytes_max) {
  check(state_ == State::kHeadDone, "a body follows a head");
  body_bytes_max_ = body_bytes_max;
  if (content_length_ > body_bytes_max) {
    fail(413, "the body has " + std::to_string(content_length_) + " bytes, at most " + std::to_string(body_bytes_max) +
                  " are taken");
    return;
  }
  state_ = has_body() ? State::kBody : State::kDone;
}

bool RequestReader::wants_continue() const {
  return request_.minor_version > 0 && has_body() && request_.headers.find("Expect") != nullptr;
}

bool RequestReader::keeps_alive() const {
  if (request_.headers.has_token("Connection", "close")) return false;
  return request_.minor_version > 0 || request_.headers.has_token("Connection", "keep-alive");
}

}  // namespace optserve::http
