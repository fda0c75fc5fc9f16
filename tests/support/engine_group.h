// A whole group of engines for a test: the body runs on rank 0, the other ranks follow.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "comm/run_ranks.h"
#include "engine/generate.h"

namespace optserve::test_support {

struct GroupKind {
  comm::RankKind kind = comm::RankKind::kSolo;
  int world = 1;
};

std::string group_name(const GroupKind& group);  // "Processes2"
// One rank; threads and processes of 2 and 4.
std::vector<GroupKind> all_groups();

// Every rank has a CPU backend of one thread. Expectations of a body in a process rank fail the test of the parent.
void run_engine_group(const GroupKind& group, const engine::EngineOptions& options,
                      const std::function<void(engine::GroupLeader& leader, const engine::Engine& engine)>& body);

}  // namespace optserve::test_support
