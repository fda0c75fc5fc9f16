// Checks of values that come from outside: options, messages, files. Every refusal is a kBadRequest of one form:
// "NAME is VALUE, expected WHAT".
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.h"

namespace optserve {

namespace detail {
// Integers become int64_t, float and double stay as they are: a number is shown with the digits of its own type.
template <class T>
using CheckedNumber = std::conditional_t<std::is_floating_point_v<T>, T, int64_t>;
Refusal out_of_range(std::string_view name, int64_t value, int64_t min, int64_t max);
Refusal out_of_range(std::string_view name, float value, float min, float max);
Refusal out_of_range(std::string_view name, double value, double min, double max);
Refusal not_above(std::string_view name, float value, float min, float max);
Refusal not_above(std::string_view name, double value, double min, double max);
}  // namespace detail

// min <= value <= max. NaN is never in a range. Unsigned values must fit int64_t.
template <class T>
requires std::is_arithmetic_v<T> Status check_range(std::string_view name, T value, std::type_identity_t<T> min,
                                                    std::type_identity_t<T> max) {
  if (value >= min && value <= max) return ok_status();
  using Number = detail::CheckedNumber<T>;
  return detail::out_of_range(name, static_cast<Number>(value), static_cast<Number>(min), static_cast<Number>(max));
}

// min < value <= max, for fractions that must not be 0.
template <class T>
requires std::is_floating_point_v<T> Status check_above(std::string_view name, T value, std::type_identity_t<T> min,
                                                        std::type_identity_t<T> max) {
  if (value > min && value <= max) return ok_status();
  return detail::not_above(name, value, min, max);
}

// One of a few words.
Status check_choice(std::string_view name, std::string_view value, std::span<const std::string_view> choices);
Status check_choice(std::string_view name, std::string_view value, std::initializer_list<std::string_view> choices);

// Names that people give to models, tenants, groups and jobs consist of [A-Za-z0-9._-]; is_name("") is true.
bool is_name(std::string_view text);
// A name of `bytes_min` to `bytes_max` characters.
Status check_name(std::string_view name, std::string_view value, size_t bytes_min, size_t bytes_max);

// For messages: the shortest digits that give the same number back.
std::string number_text(int64_t value);
std::string number_text(float value);
std::string number_text(double value);
// For messages: "a", "a or b", "a, b or c".
std::string one_of_text(std::span<const std::string_view> choices);
// For messages: the text in quotes, or only its length if it is long or has characters that could disturb a terminal.
std::string found_text(std::string_view text);

// Throws Error with the refusal's message: for options that a program cannot start with.
inline void throw_if_refused(const Status& status) {
  if (!status.ok()) throw Error(status.refusal().message);
}

}  // namespace optserve
