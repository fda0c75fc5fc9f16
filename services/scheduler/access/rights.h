// What a key may do (keys/allow_list.h), as pure functions of the key and the message. Without tables and peers: what
// depends on which job is meant is in SchedulerService.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "keys/allow_list.h"
#include "protocol/message.h"

namespace optserve::scheduler {

// What a message needs of its sender's key.
enum class Need : uint8_t {
  kNothing,  // signs of life
  kTenant,   // a client of some tenant
  kSight,    // that, or an operator
  kOperator,
  kService,  // any service
  kTokenizer,
  kWorker,
  kConverter,
  kLeases,  // a worker or converter
  kNobody,  // what a scheduler alone sends
};
Need need_of(const protocol::Message& message);
bool has(const keys::AllowedKey& key, Need need);

// Whether it may see and change jobs of this tenant.
bool sees(const keys::AllowedKey& key, std::string_view tenant);

// Everything that the key and the message decide. If the message names no tenant and the key has exactly one, that one
// is set: the key decides which tenant the job belongs to.
Status check_rights(const keys::AllowedKey& key, protocol::Message& message);

// Whether the paths of a conversion lie in the folders of a converter's key. Paths that are not absolute count from the
// converter's own root.
bool covers(const std::vector<std::string>& folders, const protocol::ConvertSpec& spec);

}  // namespace optserve::scheduler
