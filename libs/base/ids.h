// Distinct types for identifiers that would otherwise all be integers.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace optserve {

using TokenId = int32_t;  // index into a model's vocabulary; never negative outside tests

// A random 128-bit name of a job, or of one start of a process. Not guessable, unique without coordination.
struct Id128 {
  std::array<uint8_t, 16> bytes{};

  static Id128 random();                                   // from the operating system's generator; throws Error
  static std::optional<Id128> from_hex(std::string_view);  // exactly 32 lower-case hex digits
  std::string hex() const;
  auto operator<=>(const Id128&) const = default;
};

using JobId = Id128;
using InstanceId = Id128;

// Fencing token of a lease: `term` grows with each scheduler start, `number` with each lease of that term.
struct LeaseToken {
  uint64_t term = 0;
  uint64_t number = 0;
  auto operator<=>(const LeaseToken&) const = default;
};

}  // namespace optserve

template <>
struct std::hash<optserve::Id128> {
  size_t operator()(const optserve::Id128& id) const noexcept {
    size_t head;
    std::memcpy(&head, id.bytes.data(), sizeof head);  // random already: the first bytes are a good hash
    return head;
  }
};
