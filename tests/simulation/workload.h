// What clients ask in a run.
#pragma once

#include <vector>

#include "protocol/message_types.h"
#include "simulation/environment.h"

namespace optserve::simulation {

inline constexpr const char* kTenants[] = {"", "alice", "bob"};
inline constexpr const char* kGroups[] = {"night", "day"};

// One job of one client. Two clients may plan the same job, or another under the same key.
struct PlannedJob {
  protocol::JobSpec spec;
  Instant submit_at{};
  Instant cancel_at = Instant::max();
  bool may_conflict = false;  // another payload is under way under this key
};

// By client.
std::vector<std::vector<PlannedJob>> plan_jobs(Environment& environment);
// Job number `index` of a large world.
protocol::JobSpec large_job(const Environment& environment, uint64_t index);

}  // namespace optserve::simulation
