// How often one event may be logged. A peer that can make a service log a line can make it log a million.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace optserve {

class LogLimit {
 public:
  static constexpr double kBurst = 1'000;    // lines of one event at once
  static constexpr double kPerSecond = 200;  // on average
  static constexpr size_t kEventsMax = 1'000;

  // How many lines of this event have been left out since the last one that was logged; nullopt if this one must be
  // left out too.
  std::optional<uint64_t> admit(std::string_view event, Instant now);

 private:
  struct Bucket {
    double lines = kBurst;
    Instant filled;
    uint64_t left_out = 0;
  };
  std::map<std::string, Bucket, std::less<>> buckets_;
};

}  // namespace optserve
