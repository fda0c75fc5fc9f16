// The header `traceparent` of W3C Trace Context, which names the trace that a request belongs to. It is passed on and
// written into logs. No process adds spans of its own, so it does not change.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/log.h"

namespace optserve {

// Converts what a peer sent to the form of version 00: "00-" + 32 digits + "-" + 16 digits + "-" + 2 digits. Of a later
// version it takes what that has in common with 00. nullopt if the header is not valid; the specification then wants it
// ignored.
std::optional<std::string> read_traceparent(std::string_view header);

// Whether it has the form that read_traceparent() returns.
bool is_traceparent(std::string_view text);

// These take a result of read_traceparent(), or "".
std::string_view trace_id_of(std::string_view traceparent);  // 32 digits; "" of ""
bool is_sampled(std::string_view traceparent);               // the party that began the trace wants it recorded

// The field `trace_id` of a log line; left out for "".
LogField trace_field(std::string_view traceparent);

}  // namespace optserve
