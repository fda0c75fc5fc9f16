// The wire form of a message: one frame that holds msgpack [version, kind, body]. Decoding is strict: everything is
// checked against limits.h before it is allocated, and trailing bytes, duplicate fields, extension types, NaN and
// invalid UTF-8 are refused. A field that is absent keeps its default. An unknown field is ignored unless its name
// begins with '!', which means that the receiver must understand it; then the message is refused.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "protocol/message.h"

namespace optserve::protocol {

inline constexpr uint32_t kProtocolVersion = 1;

std::string encode(const Message& message);
// `bytes_max` is limits::kClientMessageBytesMax or kInternalMessageBytesMax.
Result<Message> decode(std::string_view frame, size_t bytes_max);

// The same codec for what the journal stores.
std::string encode_job_spec(const JobSpec& spec);
// What two submits of the same job have in common: the fields that differ from their defaults. So a field that a later
// version adds does not change the payload of requests that do not use it. The trace is not part of it.
std::string encode_job_payload(const JobSpec& spec);
Result<JobSpec> decode_job_spec(std::string_view bytes);
std::string encode_job_result(const JobResult& result);
Result<JobResult> decode_job_result(std::string_view bytes);

}  // namespace optserve::protocol
