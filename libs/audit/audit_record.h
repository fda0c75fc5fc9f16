// What an operator did or tried to do, as a line of an audit log: a JSON object of ASCII alone.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace optserve::audit {

inline constexpr size_t kTextBytesMax = 512;      // of each text of a record; longer ones are cut
inline constexpr size_t kLineBytesMax = 1 << 16;  // of what is read; what is written is always shorter

enum class Outcome : uint8_t {
  kBegun,  // it goes on; how it ended is a record of its own, which is missing if the process was killed meanwhile
  kDone,
  kRefused,
};
std::string_view outcome_name(Outcome outcome);

struct Record {
  int64_t wall_ms = 0;  // since 1970, by the wall clock of the scheduler's machine
  std::string action{};
  std::string object{};
  Outcome outcome = Outcome::kDone;
  std::string reason{};     // why it was refused, or what came of it
  std::string key{};        // name of the key; empty: the connection has none, or nobody's message was the cause
  std::string tenants{};    // for which that key acts
  std::string peer{};       // address of the connection
  std::string scheduler{};  // which one of several
  uint64_t left_out = 0;    // refused attempts of this key before this one that have no record
  bool operator==(const Record&) const = default;
};

// Ends with a line end, and has no other: whatever the texts hold, a record is one line. Bytes that are not UTF-8
// become U+FFFD.
std::string line_of(const Record& record);
// A line without its end. Fields that a later version may add are ignored.
Result<Record> parse_line(std::string_view line);

// "2026-01-31T23:59:59.123Z"
std::string time_text(int64_t wall_ms);
// For a terminal: control characters and all that is not ASCII as JSON writes them, without quotes.
std::string shown(std::string_view text);

}  // namespace optserve::audit
