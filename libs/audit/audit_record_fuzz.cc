// Any bytes as a line of an audit log: what is accepted is the same record again when it is written, and always one
// line.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "audit/audit_record.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  audit::Record hostile;
  hostile.action = hostile.object = hostile.reason = hostile.key = std::string(bytes);
  const std::string line = audit::line_of(hostile);
  check(std::ranges::count(line, '\n') == 1 && line.back() == '\n', "one line");
  check(line.size() <= audit::kLineBytesMax, "a line that can be read");
  check(std::ranges::all_of(line.substr(0, line.size() - 1), [](char c) { return c >= ' ' && c < 0x7f; }), "ASCII");
  check(std::ranges::all_of(audit::shown(bytes), [](char c) { return c >= ' ' && c < 0x7f; }), "shown");
  if (size > 0) check(audit::parse_line(line.substr(0, line.size() - 1)).ok(), "its own line is read");

  const auto read = audit::parse_line(bytes);
  if (!read.ok()) return 0;
  const std::string once = audit::line_of(read.value());
  const auto again = audit::parse_line(std::string_view(once).substr(0, once.size() - 1));
  check(again.ok() && audit::line_of(again.value()) == once, "round trip");
  return 0;
}
