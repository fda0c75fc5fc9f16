// The header `traceparent` of W3C Trace Context, which names the trace that a request belongs to. Here it is carried
// along and written into logs; nobody adds spans of his own, so it stays what it was.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/log.h"

namespace optserve {

// What a peer sent, in the form of version 00: "00-" + 32 digits + "-" + 16 digits + "-" + 2 digits. nullopt: it means
// nothing, and the specification has it ignored. Of a later version, what it has in common with 00.
std::optional<std::string> read_traceparent(std::string_view header);

// Whether it is what read_traceparent() gives.
bool is_traceparent(std::string_view text);

// These take what read_traceparent() gives, or "".
std::string_view trace_id_of(std::string_view traceparent);  // 32 digits; "" of ""
bool is_sampled(std::string_view traceparent);               // who began the trace wants to see it

// The field `trace_id` of a line of the log; none of "".
LogField trace_field(std::string_view traceparent);

}  // namespace optserve
