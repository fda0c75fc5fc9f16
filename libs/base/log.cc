#include "base/log.h"

#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/log_limit.h"
#include "base/log_stream.h"

namespace optserve {
namespace {

LogFormat current_format = LogFormat::kText;

// The text as a JSON string of ASCII characters: quotes, line ends and control characters cannot forge records (log
// injection) or control a terminal, and bytes that are not UTF-8 become U+FFFD.
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

// Formats lines, and reports how many were lost since the last one that was written.
class StreamSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  uint64_t lost() {
    const std::lock_guard lock(mutex_);
    return lost_;
  }

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    if (const uint64_t lost = lost_ - reported_; lost > 0) {
      std::string text = "log_lines_lost count=" + std::to_string(lost);
      if (current_format == LogFormat::kJson) {
        text = R"("event":"log_lines_lost","count":)" + std::to_string(lost);
      }
      spdlog::details::log_msg note(message);
      note.level = spdlog::level::warn;
      note.payload = text;
      if (write(note)) reported_ = lost_;
    }
    if (!write(message)) ++lost_;
  }
  void flush_() override {}

  bool write(const spdlog::details::log_msg& message) {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    return stream_.write({line.data(), line.size()});
  }

  LogStream stream_{STDERR_FILENO};
  uint64_t lost_ = 0;      // lines that found no room
  uint64_t reported_ = 0;  // how many of them a line has reported
};

std::shared_ptr<StreamSink> current_sink;

std::optional<uint64_t> admit(std::string_view event) {
  static std::mutex mutex;
  static LogLimit limit;
  const std::lock_guard lock(mutex);
  return limit.admit(event, SystemClock().now());
}

void write_line(spdlog::level::level_enum level, std::string_view event, std::initializer_list<LogField> fields) {
  auto* logger = spdlog::default_logger_raw();
  if (!logger->should_log(level)) return;
  const std::optional<uint64_t> left_out = level >= spdlog::level::info ? admit(event) : 0;
  if (!left_out) return;
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
  if (*left_out > 0) {
    line += current_format == LogFormat::kJson ? ",\"left_out\":" : " left_out=";
    line += std::to_string(*left_out);
  }
  logger->log(level, spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace

void init_logging(std::string_view process, std::string_view level, LogFormat format) {
  const auto parsed = spdlog::level::from_str(std::string(level));
  if (parsed == spdlog::level::off && level != "off") {
    throw Error("log level: expected trace, debug, info, warn, error or off, found '" + std::string(level) + "'");
  }
  current_sink = std::make_shared<StreamSink>();
  auto logger = std::make_shared<spdlog::logger>(std::string(process), current_sink);
  logger->set_level(parsed);
  logger->set_pattern(format == LogFormat::kJson
                          ? R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","process":"%n","pid":%P,%v})"
                          : "%Y-%m-%dT%H:%M:%S.%e%z %L %n[%P] %v");
  current_format = format;
  spdlog::set_default_logger(std::move(logger));
}

uint64_t log_lines_lost() { return current_sink ? current_sink->lost() : 0; }

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
