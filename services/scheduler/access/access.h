// Which key a connection has presented. Without keys everybody may do everything.
#pragma once

#include <functional>
#include <string_view>

#include "scheduler/access/rights.h"
#include "transport/service.h"

namespace optserve::scheduler {

class Access {
 public:
  // nullptr: the connection has no key, or has ended.
  using KeyOf = std::function<const keys::AllowedKey*(const transport::Peer& peer)>;

  // From the first call on, each peer needs a key.
  void set_key_of(KeyOf key_of) { key_of_ = std::move(key_of); }
  bool is_on() const { return key_of_ != nullptr; }
  const keys::AllowedKey* key_of(const transport::Peer& peer) const { return is_on() ? key_of_(peer) : nullptr; }
  // Whether this peer is told of jobs of this tenant.
  bool sees(const transport::Peer& peer, std::string_view tenant) const {
    if (!is_on()) return true;
    const keys::AllowedKey* key = key_of_(peer);
    return key != nullptr && scheduler::sees(*key, tenant);
  }

 private:
  KeyOf key_of_;
};

}  // namespace optserve::scheduler
