#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace optserve {
namespace {

LogFormat current_format = LogFormat::kText;

// As a JSON string of ASCII alone: quotes, line ends and control characters cannot break a line out of its record (log
// injection) or move a terminal, and bytes that are not UTF-8 become U+FFFD.
std::string json_quoted(std::string_view text) {
  constexpr int kOneLine = -1;
  constexpr bool kAsciiOnly = true;
  return nlohmann::json(text).dump(kOneLine, ' ', kAsciiOnly, nlohmann::json::error_handler_t::replace);
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
    line += "\"event\":" + json_quoted(event);
    for (const LogField& field : fields) {
      if (field.key.empty()) continue;
      line += "," + json_quoted(field.key) + ":" + (field.is_number ? field.value : json_quoted(field.value));
    }
  } else {
    line += event;
    for (const LogField& field : fields) {
      if (field.key.empty()) continue;
      line += " " + std::string(field.key) + "=" + (is_plain(field.value) ? field.value : json_quoted(field.value));
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
                          : "%Y-%m-%dT%H:%M:%S.%e%z %L %n[%P] %v");
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
