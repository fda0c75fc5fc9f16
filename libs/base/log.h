// Structured logs: one event name plus key=value fields per line, on standard error. Only this component includes
// spdlog.
//   log_info("worker_registered", {{"instance", id.hex()}, {"capacity", 64}});
// Prompt and generated text never goes to a log at info or above.
//
// No call waits for the reader of standard error. If there is no room for a line it is dropped, and before the next
// line that is written, the event log_lines_lost says how many were dropped. An event that occurs more than 200 times a
// second is thinned out, and its next line has the field left_out.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

namespace optserve {

// A field with an empty key is omitted.
struct LogField {
  LogField(std::string_view k, std::string_view v) : key(k), value(v) {}
  LogField(std::string_view k, const char* v) : key(k), value(v) {}
  LogField(std::string_view k, const std::string& v) : key(k), value(v) {}
  template <class T>
  requires std::is_arithmetic_v<T> LogField(std::string_view k, T v)
      : key(k), value(std::to_string(v)), is_number(true) {}

  std::string_view key;
  std::string value;
  bool is_number = false;
};

enum class LogFormat { kText, kJson };

// `process` is a field of every line ("scheduler"). Level: trace, debug, info, warn, error, off; throws Error
// otherwise.
void init_logging(std::string_view process, std::string_view level, LogFormat format);

// The number of lines that were dropped since init_logging().
uint64_t log_lines_lost();

void log_debug(std::string_view event, std::initializer_list<LogField> fields = {});
void log_info(std::string_view event, std::initializer_list<LogField> fields = {});
void log_warn(std::string_view event, std::initializer_list<LogField> fields = {});
void log_error(std::string_view event, std::initializer_list<LogField> fields = {});

}  // namespace optserve
