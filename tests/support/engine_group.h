// A whole group of engines for a test.
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
// One rank, and groups of 2 and of 4 threads and processes.
std::vector<GroupKind> all_groups();

// Runs `body` on rank 0 while the other ranks follow. Every rank has a CPU backend of one thread. If rank 0 is a
// process, an expectation that fails in it fails the test.
void run_engine_group(const GroupKind& group, const engine::EngineOptions& options,
                      const std::function<void(engine::GroupLeader& leader, const engine::Engine& engine)>& body);

}  // namespace optserve::test_support
