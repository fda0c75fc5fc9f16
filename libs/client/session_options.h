// What ClientSession and JobStreams share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>

#include "base/clock.h"
#include "base/limits.h"
#include "transport/service.h"

namespace optserve::client {

using transport::Outbox;
using transport::Peer;

struct SessionOptions {
  transport::PortId port = 0;
  std::string endpoint;                      // of the scheduler, for error messages
  Duration retry_first = milliseconds(250);  // wait between attempts: doubles up to retry_max, with full jitter
  Duration retry_max = milliseconds(8'000);
  Duration answer_within = milliseconds(2'000);  // a request without an answer is repeated after this time
  Duration lost_after = milliseconds(5'000);     // silence after which the connection counts as lost
  Duration attach_again = milliseconds(10'000);  // a stream without events for this long is attached again
  bool waits_while_busy = true;                  // false: a request that is refused for the moment is not repeated
  // After being unreachable for this long, requests that may go to another scheduler do so.
  Duration down_after = milliseconds(1'000);
  // The maximum number of bytes of stream content in flight (protocol::Credit). With more than the scheduler allows,
  // credit would be renewed too late.
  uint64_t window_bytes = limits::kStreamWindowMax;
  uint64_t seed = 0;  // of the jitter
};

// A random duration below `up_to`, so that many clients do not act at the same moment.
inline Duration jitter(std::mt19937_64& random, Duration up_to) {
  const int64_t range = std::max<int64_t>(up_to.count(), 1);
  return Duration(static_cast<int64_t>(random() % static_cast<uint64_t>(range)));
}

// The time of a call into the session, and the outbox that takes its messages.
struct Turn {
  Instant now;
  Outbox& out;
};

}  // namespace optserve::client
