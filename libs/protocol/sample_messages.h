// Messages for tests in which every field is set, either to the same content each time (golden bytes) or at random.
#pragma once

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <utility>

#include "base/hex.h"
#include "protocol/codec.h"

namespace optserve::protocol {

// Fills fields with 1, 2, 3 …, "text 4", and arrays with two entries: readable in a hex dump, and always the same.
class FixedContent {
 public:
  uint64_t number(uint64_t max) { return next() % max; }
  template <class T>
  T integer() {
    const uint64_t n = next();
    if constexpr (std::is_signed_v<T>) {
      return n % 3 == 0 ? static_cast<T>(-static_cast<int64_t>(n)) : static_cast<T>(n);
    } else {
      return static_cast<T>(n);
    }
  }
  template <class T>
  T real() {
    return static_cast<T>(next()) / 4;
  }
  std::string text() { return "text " + std::to_string(next()); }
  std::vector<uint8_t> bytes(size_t size) {
    std::vector<uint8_t> out(size);
    for (auto& byte : out) byte = static_cast<uint8_t>(next() * 37);
    return out;
  }
  bool truth() { return next() % 2 == 0; }
  size_t count() { return 2; }
  bool is_set() { return true; }

 private:
  uint64_t next() { return ++counter_; }
  uint64_t counter_ = 0;
};

// Random values from the whole range of each type, and its limits more often.
class RandomContent {
 public:
  explicit RandomContent(uint64_t seed) : random_(seed) {}

  uint64_t number(uint64_t max) { return random_() % max; }
  template <class T>
  T integer() {
    switch (random_() % 4) {
      case 0:
        return std::numeric_limits<T>::min();
      case 1:
        return std::numeric_limits<T>::max();
      case 2:
        return static_cast<T>(random_() % 300);
      default:
        return static_cast<T>(random_() >> (random_() % 64));
    }
  }
  template <class T>
  T real() {
    constexpr T kValues[] = {0,
                             static_cast<T>(-0.0),
                             1,
                             -1,
                             std::numeric_limits<T>::max(),
                             std::numeric_limits<T>::lowest(),
                             std::numeric_limits<T>::denorm_min()};
    if (random_() % 2 == 0) return kValues[random_() % std::size(kValues)];
    return std::ldexp(static_cast<T>(static_cast<int32_t>(random_())), static_cast<int>(random_() % 80) - 60);
  }
  std::string text() {
    static const std::string kPieces[] = {"a", "Z", std::string(1, '\0'), "\u00e9", "\u20ac", "\U0001f600", "\u0301"};
    std::string out;
    for (uint64_t i = random_() % 4 == 0 ? random_() % 500 : random_() % 6; i > 0; --i) {
      out += kPieces[random_() % std::size(kPieces)];
    }
    return out;
  }
  std::vector<uint8_t> bytes(size_t size) {
    std::vector<uint8_t> out(size);
    for (auto& byte : out) byte = static_cast<uint8_t>(random_());
    return out;
  }
  bool truth() { return random_() % 2 == 0; }
  size_t count() { return random_() % 16 == 0 ? random_() % 300 : random_() % 4; }
  bool is_set() { return truth(); }

 private:
  std::mt19937_64 random_;
};

template <class T, class Content>
void fill(T& value, Content& content);

template <class T, class Content>
void fill(std::vector<T>& value, Content& content) {
  value.resize(content.count());
  for (auto& item : value) fill(item, content);
}

template <class T, class Content>
void fill(std::optional<T>& value, Content& content) {
  value.reset();
  if (content.is_set()) fill(value.emplace(), content);
}

template <class T, class Content>
void fill(T& value, Content& content) {
  if constexpr (std::is_same_v<T, bool>) {
    value = content.truth();
  } else if constexpr (std::is_enum_v<T>) {
    constexpr WireRange kRange = wire_range(T{});
    value = static_cast<T>(kRange.first + content.number(kRange.last - kRange.first + 1));
  } else if constexpr (std::is_integral_v<T>) {
    value = content.template integer<T>();
  } else if constexpr (std::is_floating_point_v<T>) {
    value = content.template real<T>();
  } else if constexpr (std::is_same_v<T, std::string>) {
    value = content.text();
  } else if constexpr (std::is_same_v<T, Bytes>) {
    value.data = content.bytes(content.count());
  } else if constexpr (std::is_same_v<T, Id128>) {
    const auto bytes = content.bytes(value.bytes.size());
    std::copy(bytes.begin(), bytes.end(), value.bytes.begin());
  } else {
    value.fields([&](std::string_view, auto& field) { fill(field, content); });
  }
}

template <class Content, size_t... I>
Message make_kind(size_t index, Content& content, std::index_sequence<I...>) {
  Message message;
  (void)((I == index && (fill(message.emplace<I>(), content), true)) || ...);
  return message;
}

// The message of kind `index` (of the variant) with this content.
template <class Content>
Message sample_message(size_t index, Content&& content) {
  return make_kind(index, content, std::make_index_sequence<kMessageKinds>{});
}

// A golden file: the frame of the message of kind `index` with fixed content, in hexadecimal, 32 bytes per line.
inline std::string golden_text(size_t index) {
  constexpr size_t kBytesPerLine = 32;
  const std::string frame = encode(sample_message(index, FixedContent()));
  std::string text;
  for (size_t begin = 0; begin < frame.size(); begin += kBytesPerLine) {
    const std::string_view line = std::string_view(frame).substr(begin, kBytesPerLine);
    text += to_hex({reinterpret_cast<const uint8_t*>(line.data()), line.size()}) + "\n";
  }
  return text;
}

// What is on the wire when the job is sent again: everything except the names of unknown fields.
inline JobSpec known_part(JobSpec spec) {
  spec.unknown_fields.clear();
  if (spec.convert) spec.convert->unknown_fields.clear();
  return spec;
}
inline Message known_part(Message message) {
  if (auto* submit = std::get_if<Submit>(&message)) {
    for (JobSpec& spec : submit->jobs) spec = known_part(std::move(spec));
  } else if (auto* dispatch = std::get_if<ConvertDispatch>(&message)) {
    dispatch->spec.unknown_fields.clear();
  }
  return message;
}

}  // namespace optserve::protocol
