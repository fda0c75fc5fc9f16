// Decodes any bytes as each kind of record of a TCP group. What is accepted must be within its limits, and must mean
// the same after it is encoded again.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/limits.h"
#include "comm/tcp/frames.h"

namespace {

// The first bytes of the input, padded with zeros.
template <class Bytes>
Bytes take(const uint8_t* data, size_t size) {
  Bytes bytes{};
  std::copy_n(data, std::min(size, bytes.size()), bytes.begin());
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  using namespace optserve::comm::tcp;
  if (const auto hello = decode_hello(take<HelloBytes>(data, size)); hello.ok()) {
    const Hello& value = hello.value();
    check(value.world <= limits::kWorldSizeMax && value.rank >= 0 && value.rank < value.world, "rank and world");
    const auto again = decode_hello(encode(value));
    check(again.ok() && again.value().group == value.group && again.value().nonce == value.nonce, "the same hello");
  }
  if (const auto answer = decode_answer(take<AnswerBytes>(data, size)); answer.ok()) {
    const auto again = decode_answer(encode(answer.value()));
    check(again.ok() && again.value().text == answer.value().text, "the same answer");
  }
  if (const auto bytes = take<HelloBytes>(data, size); decode_call(bytes).ok()) {
    check(is_call(bytes) && encode(decode_call(bytes).value()) == bytes, "the same call");
  }
  if (const auto bytes = take<AnswerBytes>(data, size); decode_call_answer(bytes).ok()) {
    check(encode(decode_call_answer(bytes).value()) == bytes, "the same answer to a call");
  }
  if (const auto header = decode_header(take<HeaderBytes>(data, size)); header.ok()) {
    const FrameHeader& value = header.value();
    check(value.operation != Operation::kBytes || value.size <= limits::kGroupMessageBytesMax, "bytes of a frame");
    check(value.operation != Operation::kAbort || value.size <= kReasonBytes, "bytes of a reason");
    const auto again = decode_header(encode(value));
    check(again.ok() && again.value() == value, "the same frame");
  }
  return 0;
}
