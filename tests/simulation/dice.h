// The randomness of a run: everything is drawn from one seed.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>

#include "base/clock.h"
#include "base/ids.h"

namespace optserve::simulation {

// A number that follows from two others; different pairs give numbers that look unrelated.
inline uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t x = (a + 1) * 0x9E3779B97F4A7C15u ^ (b + 1) * 0xD1B54A32D192ED03u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

class Dice {
 public:
  explicit Dice(uint64_t seed) : engine_(seed) {}
  uint64_t number() { return engine_(); }
  uint64_t below(uint64_t bound) { return engine_() % bound; }
  int64_t between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(below(static_cast<uint64_t>(high - low + 1)));
  }
  double unit() { return static_cast<double>(engine_() >> 11) * 0x1.0p-53; }
  bool chance(double probability) { return probability > 0 && unit() < probability; }
  Duration between(Duration low, Duration high) { return Duration(between(low.count(), high.count())); }
  // Mostly near `low`, now and then near `high`: each tenfold is as likely.
  int64_t heavy_tail(int64_t low, int64_t high) {
    const double exponent = unit() * std::log(static_cast<double>(high) / static_cast<double>(low));
    return static_cast<int64_t>(static_cast<double>(low) * std::exp(exponent));
  }
  Duration heavy_tail(Duration low, Duration high) { return Duration(heavy_tail(low.count(), high.count())); }
  Id128 id() {
    Id128 id;
    const uint64_t halves[2] = {number(), number()};
    std::memcpy(id.bytes.data(), halves, sizeof halves);
    return id;
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace optserve::simulation
