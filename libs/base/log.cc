#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

#include "base/error.h"

namespace optserve {
namespace {

LogFormat current_format = LogFormat::kText;

// Quotes and control characters cannot break a line out of its record (log injection).
void append_quoted(std::string& out, std::string_view text) {
  static constexpr char kDigits[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += "\\u00";
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

bool is_plain(std::string_view text) {
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("._-:/+,@").find(c) != std::string_view::npos;
    if (!plain) return false;
  }
  return !text.empty();
}

void write_line(spdlog::level::level_enum level, std::string_view event, std::initializer_list<LogField> fields) {
  auto* logger = spdlog::default_logger_raw();
  if (!logger->should_log(level)) return;
  std::string line;
  if (current_format == LogFormat::kJson) {
    line += "\"event\":";
    append_quoted(line, event);
    for (const LogField& field : fields) {
      line += ',';
      append_quoted(line, field.key);
      line += ':';
      if (field.is_number) {
        line += field.value;
      } else {
        append_quoted(line, field.value);
      }
    }
  } else {
    line += event;
    for (const LogField& field : fields) {
      line += ' ';
      line += field.key;
      line += '=';
      if (is_plain(field.value)) {
        line += field.value;
      } else {
        append_quoted(line, field.value);
      }
    }
  }
  logger->log(level, spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace

void init_logging(std::string_view process, std::string_view level, LogFormat format) {
  const auto parsed = spdlog::level::from_str(std::string(level));
  if (parsed == spdlog::level::off && level != "off") {
    throw Error("log level: expected trace, debug, info, warn, error or off, found '" + std::string(level) + "'");
  }
  auto logger =
      std::make_shared<spdlog::logger>(std::string(process), std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_level(parsed);
  logger->set_pattern(format == LogFormat::kJson
                          ? R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","process":"%n","pid":%P,%v})"
                          : "%Y-%m-%dT%H:%M:%S.%e %L %n[%P] %v");
  logger->flush_on(spdlog::level::info);
  current_format = format;
  spdlog::set_default_logger(std::move(logger));
}

void log_debug(std::string_view event, std::initializer_list<LogField> fields) {
  write_line(spdlog::level::debug, event, fields);
}
void log_info(std::string_view event, std::initializer_list<LogField> fields) {
  write_line(spdlog::level::info, event, fields);
}
void log_warn(std::string_view event, std::initializer_list<LogField> fields) {
  write_line(spdlog::level::warn, event, fields);
}
void log_error(std::string_view event, std::initializer_list<LogField> fields) {
  write_line(spdlog::level::err, event, fields);
}

}  // namespace optserve
