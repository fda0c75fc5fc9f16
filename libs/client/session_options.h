// What the parts of a client's session share.
#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/limits.h"
#include "transport/service.h"

namespace optserve::client {

using transport::Outbox;
using transport::Peer;

struct SessionOptions {
  transport::PortId port = 0;
  std::string endpoint;                      // for messages
  Duration retry_first = milliseconds(250);  // waits between attempts: doubling to retry_max, with full jitter
  Duration retry_max = milliseconds(8'000);
  Duration answer_within = milliseconds(2'000);  // then the request is repeated
  Duration lost_after = milliseconds(5'000);
  Duration attach_again = milliseconds(10'000);  // a stream this long without events is attached again
  Duration down_after = milliseconds(1'000);     // unreachable for this long: what can go elsewhere does
  // Of stream content on its way (protocol::Credit). More than the scheduler allows would not be asked for in time.
  uint64_t window_bytes = limits::kStreamWindowMax;
  uint64_t seed = 0;  // of the jitter
};

// When a call into the session happens, and where what it sends goes.
struct Turn {
  Instant now;
  Outbox& out;
};

}  // namespace optserve::client
