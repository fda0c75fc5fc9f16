#include "base/progress_line.h"

#include <array>
#include <cstdio>
#include <utility>

namespace optserve {
namespace {

constexpr const char* kEraseLine = "\r\x1b[K";

}  // namespace

std::string RewrittenLine::show(std::string_view text) {
  is_shown_ = true;
  return kEraseLine + std::string(text);
}

std::string RewrittenLine::erase() { return std::exchange(is_shown_, false) ? kEraseLine : ""; }
std::string RewrittenLine::keep() { return std::exchange(is_shown_, false) ? "\n" : ""; }

std::string bytes_text(uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"kB", "MB", "GB", "TB", "PB"};
  if (bytes < 1000) return std::to_string(bytes) + " B";
  double number = static_cast<double>(bytes) / 1000;
  size_t unit = 0;
  while (number >= 999.5 && unit + 1 < kUnits.size()) {
    number /= 1000;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.*f %s", number < 99.95 ? 1 : 0, number, kUnits[unit]);
  return text.data();
}

std::string progress_text(const ByteProgress& progress) {
  const uint64_t percent =
      progress.total == 0
          ? 100
          : static_cast<uint64_t>(static_cast<double>(progress.done) / static_cast<double>(progress.total) * 100);
  std::string text = std::to_string(percent) + "% of " + bytes_text(progress.total);
  if (progress.bytes_per_second > 0) {
    text += ", " + bytes_text(static_cast<uint64_t>(progress.bytes_per_second)) + "/s";
  }
  for (const std::string_view part : {progress.time_left, progress.item}) {
    if (!part.empty()) text += ", " + std::string(part);
  }
  return text;
}

std::string ProgressLine::text(uint64_t done, uint64_t total, std::string_view item, Instant now) {
  const std::string left = time_left_.text(done, total, now);
  const double elapsed = std::chrono::duration<double>(now - begin_->at).count();
  const uint64_t added = done > begin_->done ? done - begin_->done : 0;
  return progress_text({.done = done,
                        .total = total,
                        .bytes_per_second = elapsed > 0 ? static_cast<double>(added) / elapsed : 0,
                        .time_left = left,
                        .item = item});
}

std::string ProgressLine::show(uint64_t done, uint64_t total, std::string_view item, Instant now) {
  const milliseconds pause{is_terminal_ ? 200 : 5'000};
  if (!begin_) begin_ = Begin{now, done};
  const std::string shown = text(done, total, item, now);
  if (now - shown_at_.value_or(begin_->at) < pause) return "";
  shown_at_ = now;
  return is_terminal_ ? line_.show(shown) : shown + "\n";
}

std::string ProgressLine::finish(uint64_t done, uint64_t total, Instant now) {
  if (!is_terminal_) return "";
  if (!begin_) begin_ = Begin{now, done};
  const std::string last = line_.show(text(done, total, "", now));
  return last + line_.keep();
}

}  // namespace optserve
