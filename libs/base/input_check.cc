#include "base/input_check.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace optserve {
namespace {

// The shortest digits that give the same number back; without an exponent unless there would be many zeros.
template <class T>
std::string real_text(T value) {
  char digits[64];
  const T size = std::abs(value);
  const bool is_plain = size == 0 || (size >= T(1e-4) && size < T(1e15));
  const auto end = is_plain ? std::to_chars(digits, std::end(digits), value, std::chars_format::fixed)
                            : std::to_chars(digits, std::end(digits), value);
  return {digits, end.ptr};
}

Refusal unexpected(std::string_view name, const std::string& value, const std::string& expected) {
  return refuse(ErrorCode::kBadRequest, std::string(name) + " is " + value + ", expected " + expected);
}

template <class T>
Refusal outside(std::string_view name, T value, T min, T max) {
  return unexpected(name, number_text(value), number_text(min) + " to " + number_text(max));
}

template <class T>
Refusal below(std::string_view name, T value, T min, T max) {
  return unexpected(name, number_text(value), "more than " + number_text(min) + ", at most " + number_text(max));
}

}  // namespace

std::string number_text(int64_t value) { return std::to_string(value); }
std::string number_text(float value) { return real_text(value); }
std::string number_text(double value) { return real_text(value); }

namespace detail {

Refusal out_of_range(std::string_view name, int64_t value, int64_t min, int64_t max) {
  return outside(name, value, min, max);
}
Refusal out_of_range(std::string_view name, float value, float min, float max) {
  return outside(name, value, min, max);
}
Refusal out_of_range(std::string_view name, double value, double min, double max) {
  return outside(name, value, min, max);
}
Refusal not_above(std::string_view name, float value, float min, float max) { return below(name, value, min, max); }
Refusal not_above(std::string_view name, double value, double min, double max) { return below(name, value, min, max); }

}  // namespace detail

Status check_choice(std::string_view name, std::string_view value, std::span<const std::string_view> choices) {
  if (std::ranges::find(choices, value) != choices.end()) return ok_status();
  return unexpected(name, found_text(value), one_of_text(choices));
}

Status check_choice(std::string_view name, std::string_view value, std::initializer_list<std::string_view> choices) {
  return check_choice(name, value, std::span(choices.begin(), choices.size()));
}

bool is_name(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

Status check_name(std::string_view name, std::string_view value, size_t bytes_min, size_t bytes_max) {
  if (value.size() >= bytes_min && value.size() <= bytes_max && is_name(value)) return ok_status();
  return unexpected(name, found_text(value),
                    std::to_string(bytes_min) + " to " + std::to_string(bytes_max) + " characters of [A-Za-z0-9._-]");
}

std::string one_of_text(std::span<const std::string_view> choices) {
  std::string text;
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) text += i + 1 == choices.size() ? " or " : ", ";
    text += choices[i];
  }
  return text;
}

std::string found_text(std::string_view text) {
  constexpr size_t kShownBytesMax = 64;
  const bool is_shown =
      text.size() <= kShownBytesMax && std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
  return is_shown ? "'" + std::string(text) + "'" : "a text of " + std::to_string(text.size()) + " bytes";
}

}  // namespace optserve
