// Keeps repeated requests a small part of all, so that clients that all wait for the same slow scheduler do not make it
// slower: a token bucket that requests fill and repetitions empty.
#pragma once

#include "base/clock.h"

namespace optserve::client {

class RetryBudget {
 public:
  struct Options {
    double share = 0.1;       // repetitions per request
    double per_second = 0.2;  // besides, so that a client with few requests can repeat them
    double burst = 10;        // most that is saved up
  };

  // Starts full.
  explicit RetryBudget(const Options& options) : options_(options), tokens_(options.burst) {}

  // A request is sent for the first time.
  void add_request(Instant now);
  // Whether a request may be repeated now; takes its token.
  bool take(Instant now);

 private:
  void refill(Instant now, double tokens);

  Options options_;
  double tokens_;
  Instant last_{};
};

}  // namespace optserve::client
