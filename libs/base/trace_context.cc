#include "base/trace_context.h"

#include <algorithm>

namespace optserve {
namespace {

constexpr size_t kBytes = 55;  // of version 00
constexpr size_t kTraceId = 3, kTraceIdBytes = 32, kParentId = 36, kParentIdBytes = 16, kFlags = 53;

bool is_digit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

bool is_zero(std::string_view digits) {
  return std::ranges::all_of(digits, [](char c) { return c == '0'; });
}

}  // namespace

std::optional<std::string> read_traceparent(std::string_view header) {
  const std::string_view text = header.substr(0, kBytes);
  if (text.size() < kBytes) return std::nullopt;
  for (size_t i = 0; i < kBytes; ++i) {
    const bool is_dash = i == kTraceId - 1 || i == kParentId - 1 || i == kFlags - 1;
    if (is_dash ? text[i] != '-' : !is_digit(text[i])) return std::nullopt;
  }
  const std::string_view version = text.substr(0, 2);
  if (version == "ff") return std::nullopt;
  if (header.size() > kBytes && (version == "00" || header[kBytes] != '-')) return std::nullopt;
  if (is_zero(text.substr(kTraceId, kTraceIdBytes)) || is_zero(text.substr(kParentId, kParentIdBytes))) {
    return std::nullopt;
  }
  std::string read = "00" + std::string(text.substr(2));
  if (version == "00") return read;
  // Of other versions' flags only the lowest has a known meaning.
  read[kFlags] = '0';
  read[kFlags + 1] = std::string_view("13579bdf").find(text[kFlags + 1]) == std::string_view::npos ? '0' : '1';
  return read;
}

bool is_traceparent(std::string_view text) { return read_traceparent(text) == text; }

std::string_view trace_id_of(std::string_view traceparent) {
  return traceparent.empty() ? traceparent : traceparent.substr(kTraceId, kTraceIdBytes);
}

bool is_sampled(std::string_view traceparent) {
  return !traceparent.empty() && std::string_view("13579bdf").find(traceparent.back()) != std::string_view::npos;
}

LogField trace_field(std::string_view traceparent) {
  return {traceparent.empty() ? std::string_view() : "trace_id", trace_id_of(traceparent)};
}

}  // namespace optserve
