// For which tenants a message counts: for that of the key, if it has one only; else for those that the message names or
// whose open job it names, if the key is for them. A peer that may act for several tenants has to keep them apart
// itself, and its requests that name no tenant count for nobody. Signs of life and credits do not count either, since a
// connection cannot do without them.
#pragma once

#include <map>
#include <string>

#include "keys/allow_list.h"
#include "protocol/message.h"
#include "scheduler/jobs/job_table.h"

namespace optserve::scheduler {

// Tenants with the number of their messages: each job of a Submit is one. `key`: nullptr without keys.
std::map<std::string, int64_t> payers_of(const protocol::Message& message, const keys::AllowedKey* key,
                                         const JobTable& jobs);

}  // namespace optserve::scheduler
