#include "protocol/codec.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <cmath>
#include <limits>
#include <msgpack.hpp>
#include <type_traits>

#include "base/limits.h"
#include "base/utf8.h"

namespace optserve::protocol {
namespace {

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};

template <class T>
concept Positional = requires {
  T::kPositional;
};

constexpr size_t kUnknownFieldsMax = 8;  // the maximum number of names that are kept for a job

// Fields of jobs that version 0.2.0 did not have.
constexpr std::array<std::string_view, 1> kLaterFieldsOfJobs = {"traceparent"};

// A mandatory field (its name begins with '!') and a later field of jobs are sent only if they are set, since older
// programs refuse a message with the former and a job with the latter.
template <class T>
bool is_sent(std::string_view name, const T& field) {
  const bool is_refused_by_some =
      name.starts_with('!') || std::ranges::find(kLaterFieldsOfJobs, name) != kLaterFieldsOfJobs.end();
  return !is_refused_by_some || !(field == T{});
}

template <class T>
uint32_t count_fields(const T& value) {
  uint32_t count = 0;
  visit_fields(value, [&](std::string_view name, const auto& field) {
    count += Positional<T> || is_sent(name, field) ? 1 : 0;  // an array has a place for every field
  });
  return count;
}

// The output of a packer. It writes to the frame itself, so that nothing is copied afterwards.
struct Frame {
  Frame() { bytes.reserve(512); }
  void write(const char* data, size_t size) { bytes.append(data, size); }
  std::string bytes;
};

class Encoder {
 public:
  explicit Encoder(Frame& frame) : packer_(frame) {}

  void begin_array(uint32_t size) { packer_.pack_array(size); }

  template <class T>
  void put_named(std::string_view name, const T& value) {
    packer_.pack(name);
    put(value);
  }

  template <class T>
  void put(const T& value) {
    if constexpr (std::is_enum_v<T>) {
      packer_.pack(static_cast<uint8_t>(value));
    } else if constexpr (std::is_same_v<T, Bytes>) {
      put_binary(value.data.data(), value.data.size());
    } else if constexpr (std::is_same_v<T, Id128>) {
      put_binary(value.bytes.data(), value.bytes.size());
    } else if constexpr (IsOptional<T>::value) {
      if (value) {
        put(*value);
      } else {
        packer_.pack_nil();
      }
    } else if constexpr (IsVector<T>::value) {
      packer_.pack_array(static_cast<uint32_t>(value.size()));
      for (const auto& item : value) put(item);
    } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
      packer_.pack(value);
    } else {
      put_struct(value);
    }
  }

 private:
  void put_binary(const uint8_t* data, size_t size) {
    packer_.pack_bin(static_cast<uint32_t>(size));
    packer_.pack_bin_body(reinterpret_cast<const char*>(data), static_cast<uint32_t>(size));
  }

  template <class T>
  void put_struct(const T& value) {
    const uint32_t count = count_fields(value);
    if constexpr (Positional<T>) {
      packer_.pack_array(count);
      visit_fields(value, [&](std::string_view, const auto& field) { put(field); });
    } else {
      packer_.pack_map(count);
      visit_fields(value, [&](std::string_view name, const auto& field) {
        if (is_sent(name, field)) put_named(name, field);
      });
    }
  }

  msgpack::packer<Frame> packer_;
};

// Thrown to leave the recursion below; never leaves this file.
struct DecodeFailure {
  ErrorCode code;
  std::string message;
};

class Decoder {
 public:
  explicit Decoder(std::string_view root) { path_.push_back(root); }

  template <class T>
  void get(const msgpack::object& object, T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      if (object.type != msgpack::type::BOOLEAN) fail("expected true or false");
      value = object.via.boolean;
    } else if constexpr (std::is_enum_v<T>) {
      get_enum(object, value);
    } else if constexpr (std::is_integral_v<T>) {
      get_integer(object, value);
    } else if constexpr (std::is_floating_point_v<T>) {
      get_float(object, value);
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (object.type != msgpack::type::STR) fail("expected text");
      const std::string_view text(object.via.str.ptr, object.via.str.size);
      if (!is_valid_utf8(text)) {
        fail("text is not valid UTF-8 from byte " + std::to_string(valid_utf8_prefix(text)) + " on");
      }
      value = text;
    } else if constexpr (std::is_same_v<T, Bytes>) {
      const auto bytes = binary(object);
      value.data.assign(bytes.begin(), bytes.end());
    } else if constexpr (std::is_same_v<T, Id128>) {
      const auto bytes = binary(object);
      if (bytes.size() != value.bytes.size()) fail("expected an id of 16 bytes, found " + std::to_string(bytes.size()));
      std::copy(bytes.begin(), bytes.end(), value.bytes.begin());
    } else if constexpr (IsOptional<T>::value) {
      value.reset();
      if (object.type != msgpack::type::NIL) get(object, value.emplace());
    } else if constexpr (IsVector<T>::value) {
      if (object.type != msgpack::type::ARRAY) fail("expected an array");
      value.resize(object.via.array.size);
      for (uint32_t i = 0; i < object.via.array.size; ++i) get(object.via.array.ptr[i], value[i]);
    } else if constexpr (Positional<T>) {
      get_positional(object, value);
    } else {
      get_map(object, value);
    }
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    std::string where;
    for (const std::string_view part : path_) where += (where.empty() ? "" : ".") + std::string(part);
    throw DecodeFailure{ErrorCode::kBadRequest, where + ": " + what};
  }

  std::span<const uint8_t> binary(const msgpack::object& object) const {
    if (object.type != msgpack::type::BIN) fail("expected binary");
    return {reinterpret_cast<const uint8_t*>(object.via.bin.ptr), object.via.bin.size};
  }

  template <class T>
  void get_enum(const msgpack::object& object, T& value) const {
    constexpr WireRange kRange = wire_range(T{});
    if (object.type != msgpack::type::POSITIVE_INTEGER || object.via.u64 < kRange.first ||
        object.via.u64 > kRange.last) {
      fail("expected a number from " + std::to_string(kRange.first) + " to " + std::to_string(kRange.last));
    }
    value = static_cast<T>(object.via.u64);
  }

  template <class T>
  void get_integer(const msgpack::object& object, T& value) const {
    if (object.type == msgpack::type::POSITIVE_INTEGER) {
      if (!std::in_range<T>(object.via.u64)) fail("integer out of range");
      value = static_cast<T>(object.via.u64);
    } else if (object.type == msgpack::type::NEGATIVE_INTEGER) {
      if (!std::in_range<T>(object.via.i64)) fail("integer out of range");
      value = static_cast<T>(object.via.i64);
    } else {
      fail("expected an integer");
    }
  }

  template <class T>
  void get_float(const msgpack::object& object, T& value) const {
    double number = 0;
    if (object.type == msgpack::type::FLOAT32 || object.type == msgpack::type::FLOAT64) {
      number = object.via.f64;
    } else if (object.type == msgpack::type::POSITIVE_INTEGER) {
      number = static_cast<double>(object.via.u64);
    } else if (object.type == msgpack::type::NEGATIVE_INTEGER) {
      number = static_cast<double>(object.via.i64);
    } else {
      fail("expected a number");
    }
    // Written so that NaN fails too. A conversion of a value out of the narrower type's range would be undefined.
    if (!(std::abs(number) <= static_cast<double>(std::numeric_limits<T>::max()))) fail("number is not finite");
    value = static_cast<T>(number);
  }

  template <class T>
  void get_positional(const msgpack::object& object, T& value) {
    if (object.type != msgpack::type::ARRAY) fail("expected an array");
    uint32_t next = 0;
    value.fields([&](std::string_view name, auto& field) {
      if (next >= object.via.array.size) return;  // from an older sender; the remaining fields keep their defaults
      path_.push_back(name);
      get(object.via.array.ptr[next++], field);
      path_.pop_back();
    });
  }

  template <class T>
  void get_map(const msgpack::object& object, T& value) {
    if (object.type != msgpack::type::MAP) fail("expected a map");
    const std::span<const msgpack::object_kv> entries(object.via.map.ptr, object.via.map.size);
    std::bitset<limits::kMessageMapMax> used;
    size_t cursor = 0;  // fields mostly arrive in our own order, so the next entry is the most likely one
    value.fields([&](std::string_view name, auto& field) {
      for (size_t tried = 0; tried < entries.size(); ++tried) {
        const size_t at = (cursor + tried) % entries.size();
        if (used[at] || key_of(entries[at]) != name) continue;
        used.set(at);
        cursor = at + 1;
        path_.push_back(name);
        get(entries[at].val, field);
        path_.pop_back();
        return;
      }
    });
    for (size_t i = 0; i < entries.size(); ++i) {
      if (used[i]) continue;
      const std::string shown = check_unused(entries, i);
      if constexpr (requires { value.unknown_fields; }) {
        if (value.unknown_fields.size() < kUnknownFieldsMax) value.unknown_fields.push_back(shown);
      }
    }
  }

  std::string_view key_of(const msgpack::object_kv& entry) const {
    if (entry.key.type != msgpack::type::STR) fail("expected text as a field name");
    return {entry.key.via.str.ptr, entry.key.via.str.size};
  }

  // Checks an unused entry and returns its name in a form that can be shown.
  std::string check_unused(std::span<const msgpack::object_kv> entries, size_t index) const {
    const std::string_view name = key_of(entries[index]);
    const std::string shown = is_valid_utf8(name) ? std::string(name.substr(0, 64)) : "(not UTF-8)";
    if (name.starts_with('!')) {
      throw DecodeFailure{ErrorCode::kUnsupportedVersion, "mandatory field '" + shown + "' is not known"};
    }
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i != index && key_of(entries[i]) == name) fail("field '" + shown + "' occurs twice");
    }
    return shown;
  }

  std::vector<std::string_view> path_;
};

template <class T>
Result<T> guarded(const auto& body) {
  try {
    return body();
  } catch (const DecodeFailure& failure) {
    return refuse(failure.code, failure.message);
  } catch (const msgpack::depth_size_overflow&) {
    return refuse(ErrorCode::kBadRequest, "message: nested deeper than " + std::to_string(limits::kMessageDepthMax));
  } catch (const msgpack::size_overflow&) {
    return refuse(ErrorCode::kBadRequest, "message: a container or text is larger than allowed");
  } catch (const msgpack::unpack_error& error) {
    return refuse(ErrorCode::kBadRequest, std::string("message: not well-formed msgpack (") + error.what() + ")");
  }
}

// Holds the objects of one message at a time. It keeps its first chunk, which suffices for most messages, so that a
// burst of tokens allocates nothing here. The next call of unpack() empties it.
msgpack::zone& reused_zone() {
  constexpr size_t kChunkBytes = 64 << 10;
  thread_local msgpack::zone zone(kChunkBytes);
  zone.clear();
  return zone;
}

// The object lives until the next call on this thread.
msgpack::object unpack(std::string_view bytes, size_t bytes_max) {
  if (bytes.size() > bytes_max) {
    throw DecodeFailure{ErrorCode::kBadRequest, "message: " + std::to_string(bytes.size()) + " bytes, at most " +
                                                    std::to_string(bytes_max) + " are allowed"};
  }
  const size_t text_max = bytes_max > limits::kClientMessageBytesMax ? bytes_max / 4 : limits::kMessageStringMax;
  const msgpack::unpack_limit limit(limits::kMessageArrayMax, limits::kMessageMapMax, text_max, text_max, 0,
                                    limits::kMessageDepthMax);
  size_t offset = 0;
  bool referenced = false;
  // Texts stay in the frame, which outlives the objects, so that nothing is copied twice.
  const auto refer = [](msgpack::type::object_type, size_t, void*) { return true; };
  const msgpack::object object =
      msgpack::unpack(reused_zone(), bytes.data(), bytes.size(), offset, referenced, refer, nullptr, limit);
  if (offset != bytes.size()) {
    throw DecodeFailure{ErrorCode::kBadRequest,
                        "message: " + std::to_string(bytes.size() - offset) + " bytes after its end"};
  }
  return object;
}

template <class T>
Message decode_body(std::string_view name, const msgpack::object& body) {
  T message;
  Decoder(name).get(body, message);
  return message;
}

// `kind` counts from 1 and is known.
Message decode_kind(size_t kind, const msgpack::object& body) {
  using Function = Message (*)(std::string_view, const msgpack::object&);
#define OPTSERVE_DECODE(T) &decode_body<T>,
  static constexpr std::array<Function, kMessageKinds> kDecoders = {OPTSERVE_MESSAGES(OPTSERVE_DECODE)};
#undef OPTSERVE_DECODE
  return kDecoders[kind - 1](message_name(kind - 1), body);
}

uint64_t header_number(const msgpack::object& object, const char* what) {
  if (object.type != msgpack::type::POSITIVE_INTEGER) {
    throw DecodeFailure{ErrorCode::kBadRequest, std::string("message: ") + what + " is not a number"};
  }
  return object.via.u64;
}

template <class T>
std::string encode_struct(const T& value) {
  Frame frame;
  Encoder(frame).put(value);
  return std::move(frame.bytes);
}

// Each field encoded by itself, as its name and value.
template <class T>
std::vector<std::string> named_fields(const T& value) {
  std::vector<std::string> fields;
  visit_fields(value, [&](std::string_view name, const auto& field) {
    Frame frame;
    Encoder(frame).put_named(name, field);
    fields.push_back(std::move(frame.bytes));
  });
  return fields;
}

template <class T>
Result<T> decode_struct(std::string_view bytes, std::string_view name) {
  return guarded<T>([&]() -> Result<T> {
    const msgpack::object object = unpack(bytes, limits::kInternalMessageBytesMax);
    T value;
    Decoder(name).get(object, value);
    return value;
  });
}

}  // namespace

std::string encode(const Message& message) {
  Frame frame;
  Encoder encoder(frame);
  encoder.begin_array(3);
  encoder.put(kProtocolVersion);
  encoder.put(static_cast<uint32_t>(message.index() + 1));
  std::visit([&](const auto& body) { encoder.put(body); }, message);
  return std::move(frame.bytes);
}

Result<Message> decode(std::string_view frame, size_t bytes_max) {
  return guarded<Message>([&]() -> Result<Message> {
    const msgpack::object root = unpack(frame, bytes_max);
    if (root.type != msgpack::type::ARRAY || root.via.array.size != 3) {
      return refuse(ErrorCode::kBadRequest, "message: expected [version, kind, body]");
    }
    const uint64_t version = header_number(root.via.array.ptr[0], "version");
    if (version != kProtocolVersion) {
      return refuse(ErrorCode::kUnsupportedVersion, "protocol version " + std::to_string(version) +
                                                        ", this build speaks " + std::to_string(kProtocolVersion));
    }
    const uint64_t kind = header_number(root.via.array.ptr[1], "kind");
    if (kind < 1 || kind > kMessageKinds) {
      return refuse(ErrorCode::kUnsupportedVersion, "message kind " + std::to_string(kind) + " is not known");
    }
    return decode_kind(kind, root.via.array.ptr[2]);
  });
}

std::string encode_job_spec(const JobSpec& spec) { return encode_struct(spec); }

std::string encode_job_payload(const JobSpec& spec) {
  static const std::vector<std::string> kDefaults = named_fields(JobSpec{});
  Frame frame;
  Encoder encoder(frame);
  size_t index = 0;
  visit_fields(spec, [&](std::string_view name, const auto& field) {
    const size_t begin = frame.bytes.size();
    encoder.put_named(name, field);
    // The trace belongs to the request and not to the job: a repeated request has a different one.
    const bool is_left_out = name == "traceparent" || std::string_view(frame.bytes).substr(begin) == kDefaults[index];
    if (is_left_out) frame.bytes.resize(begin);
    ++index;
  });
  return std::move(frame.bytes);
}

Result<JobSpec> decode_job_spec(std::string_view bytes) { return decode_struct<JobSpec>(bytes, "JobSpec"); }
std::string encode_job_result(const JobResult& result) { return encode_struct(result); }
Result<JobResult> decode_job_result(std::string_view bytes) { return decode_struct<JobResult>(bytes, "JobResult"); }

}  // namespace optserve::protocol
