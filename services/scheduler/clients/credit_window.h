// How much of its streams a connection may still get (protocol::Credit).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/limits.h"

namespace optserve::scheduler {

class CreditWindow {
 public:
  // The client has consumed `consumed` in all. False: the count decreased, and is ignored.
  bool grant(uint64_t consumed, uint64_t window) {
    if (on_ && consumed < consumed_) return false;
    if (!on_) base_ = consumed;
    on_ = true;
    consumed_ = consumed;
    window_ = std::clamp(window, limits::kStreamWindowMin, limits::kStreamWindowMax);
    // What it consumed on another connection gives no credit on this one.
    if (consumed_ - base_ > sent_) base_ = consumed_ - sent_;
    return true;
  }
  // False: only its socket limits it.
  bool is_on() const { return on_; }
  uint64_t outstanding() const { return sent_ - (consumed_ - base_); }
  // A message may be sent as long as there is any room, so that one that is larger than the window gets through, too.
  uint64_t room() const {
    if (!on_) return UINT64_MAX;
    return outstanding() < window_ ? window_ - outstanding() : 0;
  }
  void spend(size_t cost) {
    if (on_) sent_ += cost;
  }
  // Was not handed over.
  void take_back(size_t cost) {
    if (on_) sent_ -= std::min<uint64_t>(cost, outstanding());
  }

 private:
  bool on_ = false;
  uint64_t base_ = 0, consumed_ = 0, window_ = 0, sent_ = 0;
};

}  // namespace optserve::scheduler
