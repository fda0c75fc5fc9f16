#include "comm/tcp/frames.h"

#include <algorithm>
#include <cstring>

#include "base/limits.h"

namespace optserve::comm::tcp {
namespace {

constexpr uint64_t kHelloMagic = 0x313070726774706f;  // "optgrp01"; a change of any record needs a new number
constexpr uint64_t kCallMagic = 0x313079656b74706f;   // "optkey01"
constexpr uint32_t kCallAnswerMagic = 0x3179656b;
constexpr uint32_t kAnswerMagic = 0x31736e61;
constexpr uint32_t kFrameMagic = 0x316d7266;

// These write and read little-endian integers, whatever the byte order of the machine.
template <class T>
void put(std::span<uint8_t> bytes, size_t at, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) bytes[at + i] = static_cast<uint8_t>(static_cast<uint64_t>(value) >> (8 * i));
}

template <class T>
T get(std::span<const uint8_t> bytes, size_t at) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<uint64_t>(bytes[at + i]) << (8 * i);
  return static_cast<T>(value);
}

void put_text(std::span<uint8_t> field, const std::string& text) {
  std::copy_n(text.begin(), std::min(text.size(), field.size()), field.begin());
}

// The text up to the first zero, with '?' for characters that cannot be printed, because it goes to logs and messages.
std::string get_text(std::span<const uint8_t> field) {
  std::string text;
  for (const uint8_t byte : field) {
    if (byte == 0) break;
    text += byte >= 0x20 && byte != 0x7f ? static_cast<char>(byte) : '?';
  }
  return text;
}

// An offer at the beginning of a record that is empty after it.
void put_offer(std::span<uint8_t> field, const keys::Offer& offer) { std::ranges::copy(offer, field.begin()); }

bool get_offer(std::span<const uint8_t> field, keys::Offer& offer) {
  std::copy_n(field.begin(), offer.size(), offer.begin());
  return std::ranges::all_of(field.subspan(offer.size()), [](uint8_t byte) { return byte == 0; });
}

Refusal malformed(const std::string& what) { return refuse(ErrorCode::kBadRequest, what); }

}  // namespace

HelloBytes encode(const Hello& hello) {
  check(hello.group.size() <= kTextBytes, "bytes of a group's name");
  HelloBytes bytes{};
  put(bytes, 0, kHelloMagic);
  put(bytes, 8, static_cast<uint32_t>(hello.channel));
  put(bytes, 12, static_cast<uint32_t>(hello.world));
  put(bytes, 16, static_cast<uint32_t>(hello.rank));
  std::copy(hello.nonce.bytes.begin(), hello.nonce.bytes.end(), bytes.begin() + 20);
  put_text(std::span(bytes).subspan(36), hello.group);
  return bytes;
}

Result<Hello> decode_hello(const HelloBytes& bytes) {
  if (get<uint64_t>(bytes, 0) != kHelloMagic) return malformed("it is not a rank of this version of optserve");
  const auto channel = get<uint32_t>(bytes, 8), world = get<uint32_t>(bytes, 12), rank = get<uint32_t>(bytes, 16);
  if (channel < 1 || channel > 2) return malformed("unknown channel " + std::to_string(channel));
  if (world < 1 || world > limits::kWorldSizeMax || rank >= world) {
    return malformed("rank " + std::to_string(rank) + " of " + std::to_string(world) + " is impossible");
  }
  Hello hello;
  hello.channel = static_cast<Channel>(channel);
  hello.world = static_cast<int>(world);
  hello.rank = static_cast<int>(rank);
  std::copy_n(bytes.begin() + 20, hello.nonce.bytes.size(), hello.nonce.bytes.begin());
  hello.group = get_text(std::span(bytes).subspan(36));
  return hello;
}

HelloBytes encode(const Call& call) {
  HelloBytes bytes{};
  put(bytes, 0, kCallMagic);
  put_offer(std::span(bytes).subspan(8), call.offer);
  return bytes;
}

Result<Call> decode_call(const HelloBytes& bytes) {
  Call call;
  if (get<uint64_t>(bytes, 0) != kCallMagic || !get_offer(std::span(bytes).subspan(8), call.offer)) {
    return malformed("it offers no key, but the group has one");
  }
  return call;
}

bool is_call(const HelloBytes& bytes) { return get<uint64_t>(bytes, 0) == kCallMagic; }

AnswerBytes encode(const CallAnswer& answer) {
  AnswerBytes bytes{};
  put(bytes, 0, kCallAnswerMagic);
  put_offer(std::span(bytes).subspan(4), answer.offer);
  return bytes;
}

Result<CallAnswer> decode_call_answer(const AnswerBytes& bytes) {
  CallAnswer answer;
  if (get<uint32_t>(bytes, 0) != kCallAnswerMagic || !get_offer(std::span(bytes).subspan(4), answer.offer)) {
    return malformed("it offers no key, but the group has one");
  }
  return answer;
}

AnswerBytes encode(const Answer& answer) {
  AnswerBytes bytes{};
  put(bytes, 0, kAnswerMagic);
  put(bytes, 4, static_cast<uint32_t>(answer.kind));
  put(bytes, 8, answer.token);
  put_text(std::span(bytes).subspan(16), answer.text);
  return bytes;
}

Result<Answer> decode_answer(const AnswerBytes& bytes) {
  const auto kind = get<uint32_t>(bytes, 4);
  if (get<uint32_t>(bytes, 0) != kAnswerMagic || kind < 1 || kind > 4) return malformed("its answer is malformed");
  return Answer{static_cast<Answer::Kind>(kind), get<uint64_t>(bytes, 8), get_text(std::span(bytes).subspan(16))};
}

const char* name_of(Operation operation) {
  static constexpr const char* kNames[] = {"",        "all_reduce_sum", "all_gather", "broadcast", "broadcast_bytes",
                                           "barrier", "abort",          "leave"};
  return kNames[static_cast<size_t>(operation)];
}

HeaderBytes encode(const FrameHeader& header) {
  HeaderBytes bytes{};
  put(bytes, 0, kFrameMagic);
  put(bytes, 4, static_cast<uint16_t>(header.operation));
  put(bytes, 6, static_cast<uint16_t>(header.root));
  put(bytes, 8, header.token);
  put(bytes, 16, header.total);
  put(bytes, 24, header.size);
  return bytes;
}

Result<FrameHeader> decode_header(const HeaderBytes& bytes) {
  const auto operation = get<uint16_t>(bytes, 4), root = get<uint16_t>(bytes, 6);
  if (get<uint32_t>(bytes, 0) != kFrameMagic || operation < 1 || operation > 7 || root >= limits::kWorldSizeMax) {
    return malformed("its first bytes are not those of a frame");
  }
  FrameHeader header;
  header.operation = static_cast<Operation>(operation);
  header.root = root;
  header.token = get<uint64_t>(bytes, 8);
  header.total = get<uint64_t>(bytes, 16);
  header.size = get<uint64_t>(bytes, 24);
  uint64_t most = UINT64_MAX;
  if (header.operation == Operation::kAbort) most = kReasonBytes;
  if (header.operation == Operation::kBytes) most = limits::kGroupMessageBytesMax;
  if (header.size > most) {
    return malformed(std::string(name_of(header.operation)) + " of " + std::to_string(header.size) +
                     " bytes, at most " + std::to_string(most) + " are allowed");
  }
  return header;
}

}  // namespace optserve::comm::tcp
