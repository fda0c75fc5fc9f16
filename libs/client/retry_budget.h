// Limits repeated requests to a small share of all requests, so that clients that wait for a slow scheduler do not slow
// it down further. It is a token bucket: requests fill it, repetitions empty it.
#pragma once

#include "base/clock.h"

namespace optserve::client {

class RetryBudget {
 public:
  struct Options {
    double share = 0.1;       // tokens for each request
    double per_second = 0.2;  // tokens for each second, so that a client with few requests can repeat them
    double burst = 10;        // most tokens in the bucket
  };

  // The bucket starts full.
  explicit RetryBudget(const Options& options) : options_(options), tokens_(options.burst) {}

  // To be called for each request that is sent for the first time.
  void add_request(Instant now);
  // True if a request may be repeated now; this takes a token.
  bool take(Instant now);

 private:
  void refill(Instant now, double tokens);

  Options options_;
  double tokens_;
  Instant last_{};
};

}  // namespace optserve::client
