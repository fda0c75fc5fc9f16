// Wire form of a message: one frame, msgpack [version, kind, body]. Decoding is strict: limits.h bounds everything
// before it is allocated; no trailing bytes, duplicate fields, extension types, NaN or invalid UTF-8. Fields that are
// absent keep their default; unknown fields are ignored unless their name starts with '!' (the sender insists).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "base/error.h"
#include "protocol/client_messages.h"
#include "protocol/operator_messages.h"
#include "protocol/service_messages.h"

namespace optserve::protocol {

inline constexpr uint32_t kProtocolVersion = 1;

// Every message. Its index plus one is the kind on the wire: append only.
using Message = std::variant<Submit, SubmitReply, Attach, JobEvents, JobFinished, Cancel, GetJob, JobStatus, GetStatus,
                             SystemStatus, Refused, Ping, Pong, Register, Registered, Heartbeat, Goodbye, Encode,
                             Encoded, Decode, Decoded, Dispatch, Revoke, Tokens, PromptLogprobs, LeaseFailed,
                             ConvertDispatch, ConvertProgress, Credit, Control, ListJobs, JobList, Requeue, Purge,
                             Purged, GetGroup, GroupStatus, Backup, BackedUp, Hypotheses>;

std::string encode(const Message& message);
// `bytes_max`: limits::kClientMessageBytesMax or kInternalMessageBytesMax.
Result<Message> decode(std::string_view frame, size_t bytes_max);
// "Submit", for logs and metrics.
std::string_view message_name(const Message& message);
// The same by variant index, 0 to kMessageKinds - 1.
inline constexpr size_t kMessageKinds = std::variant_size_v<Message>;
std::string_view message_name(size_t index);

// The same codec for what is stored rather than sent: the journal's payloads.
std::string encode_job_spec(const JobSpec& spec);
// What two submits of one job have in common: the fields that differ from their defaults, so that a field which a later
// version adds does not make another payload of the same request.
std::string encode_job_payload(const JobSpec& spec);
Result<JobSpec> decode_job_spec(std::string_view bytes);
std::string encode_job_result(const JobResult& result);
Result<JobResult> decode_job_result(std::string_view bytes);

}  // namespace optserve::protocol
