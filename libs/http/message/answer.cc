#include "http/message/answer.h"

#include <algorithm>
#include <array>
#include <ctime>

#include "base/check.h"

namespace optserve::http {
namespace {

struct Reason {
  int status;
  std::string_view text;
};

constexpr std::array kReasons{
    Reason{100, "Continue"},
    Reason{200, "OK"},
    Reason{201, "Created"},
    Reason{202, "Accepted"},
    Reason{204, "No Content"},
    Reason{206, "Partial Content"},
    Reason{301, "Moved Permanently"},
    Reason{302, "Found"},
    Reason{303, "See Other"},
    Reason{304, "Not Modified"},
    Reason{307, "Temporary Redirect"},
    Reason{308, "Permanent Redirect"},
    Reason{400, "Bad Request"},
    Reason{401, "Unauthorized"},
    Reason{403, "Forbidden"},
    Reason{404, "Not Found"},
    Reason{405, "Method Not Allowed"},
    Reason{406, "Not Acceptable"},
    Reason{408, "Request Timeout"},
    Reason{409, "Conflict"},
    Reason{410, "Gone"},
    Reason{411, "Length Required"},
    Reason{412, "Precondition Failed"},
    Reason{413, "Content Too Large"},
    Reason{414, "URI Too Long"},
    Reason{415, "Unsupported Media Type"},
    Reason{417, "Expectation Failed"},
    Reason{422, "Unprocessable Content"},
    Reason{424, "Failed Dependency"},
    Reason{429, "Too Many Requests"},
    Reason{431, "Request Header Fields Too Large"},
    Reason{499, "Client Closed Request"},
    Reason{500, "Internal Server Error"},
    Reason{501, "Not Implemented"},
    Reason{502, "Bad Gateway"},
    Reason{503, "Service Unavailable"},
    Reason{504, "Gateway Timeout"},
    Reason{505, "HTTP Version Not Supported"},
    Reason{507, "Insufficient Storage"},
};

void add_field(std::string& text, std::string_view name, std::string_view value) {
  text.append(name).append(": ");
  const size_t begin = text.size();
  text.append(value);
  std::replace_if(
      text.begin() + static_cast<std::ptrdiff_t>(begin), text.end(),
      [](char c) { return !is_field_value(std::string_view(&c, 1)); }, ' ');
  text.append("\r\n");
}

}  // namespace

std::string_view reason_of(int status) {
  const auto* found =
      std::find_if(kReasons.begin(), kReasons.end(), [&](const Reason& reason) { return reason.status == status; });
  return found == kReasons.end() ? "Unknown" : found->text;
}

std::string render(const HeadOfAnswer& head) {
  std::string text = "HTTP/1.1 " + std::to_string(head.status) + " ";
  text.append(reason_of(head.status)).append("\r\n");
  for (const auto& [name, value] : head.headers) add_field(text, name, value);
  if (head.framing == Framing::kChunks) add_field(text, "Transfer-Encoding", "chunked");
  if (head.framing == Framing::kLength && head.status != 204 && head.status != 304) {
    add_field(text, "Content-Length", std::to_string(head.content_length));
  }
  if (!head.date.empty()) add_field(text, "Date", head.date);
  if (!head.keep_alive) add_field(text, "Connection", "close");
  if (head.keep_alive && head.minor_version == 0) add_field(text, "Connection", "keep-alive");
  return text += "\r\n";
}

std::string http_date(int64_t wall_ms) {
  constexpr std::array kDays{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr std::array kMonths{"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const time_t at = static_cast<time_t>(wall_ms / 1000);
  tm parts{};
  gmtime_r(&at, &parts);
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%s, %02d %s %04d %02d:%02d:%02d GMT",
                kDays.at(static_cast<size_t>(parts.tm_wday)), parts.tm_mday,
                kMonths.at(static_cast<size_t>(parts.tm_mon)), parts.tm_year + 1900, parts.tm_hour, parts.tm_min,
                parts.tm_sec);
  return text.data();
}

std::string sse_frame(std::string_view data) {
  check(!data.empty() && data.find_first_of("\r\n") == std::string_view::npos, "the data of an event is one line");
  std::string frame;
  frame.reserve(data.size() + 8);
  return frame.append("data: ").append(data).append("\n\n");
}

Headers sse_headers() {
  return {
      {"Content-Type", "text/event-stream; charset=utf-8"}, {"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
}

}  // namespace optserve::http
