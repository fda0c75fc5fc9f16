// Any bytes are either refused or a message that survives a round trip. The first byte chooses what they are read as.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/limits.h"
#include "protocol/codec.h"
#include "protocol/sample_messages.h"
#include "protocol/validate.h"

namespace {

using namespace optserve;

void fuzz_message(std::string_view bytes, size_t bytes_max) {
  const auto message = protocol::decode(bytes, bytes_max);
  if (!message.ok()) {
    check(!message.refusal().message.empty(), "a refusal without a reason");
    return;
  }
  const std::string frame = protocol::encode(message.value());
  const auto again = protocol::decode(frame, limits::kInternalMessageBytesMax);
  check(again.ok(), "an encoded message is not accepted");
  check(again.value() == protocol::known_part(message.value()), "a message changed on its way");
  check(protocol::encode(again.value()) == frame, "two encodings of one message");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      fuzz_message(bytes, limits::kClientMessageBytesMax);
      break;
    case 1:
      fuzz_message(bytes, limits::kInternalMessageBytesMax);
      break;
    case 2:
      if (const auto spec = protocol::decode_job_spec(bytes); spec.ok()) {
        const auto again = protocol::decode_job_spec(protocol::encode_job_spec(spec.value()));
        check(again.ok() && again.value() == protocol::known_part(spec.value()), "a job changed in storage");
        (void)protocol::validate(spec.value()).ok();
      }
      break;
    default:
      if (const auto result = protocol::decode_job_result(bytes); result.ok()) {
        const auto again = protocol::decode_job_result(protocol::encode_job_result(result.value()));
        check(again.ok() && again.value() == result.value(), "a result changed in storage");
      }
  }
  return 0;
}
