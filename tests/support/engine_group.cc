#include "support/engine_group.h"

namespace optserve::test_support {

std::string group_name(const GroupKind& group) { return rank_kind_name(group.kind) + std::to_string(group.world); }

std::vector<GroupKind> all_groups() {
  return {{RankKind::kSolo, 1},
          {RankKind::kThreads, 2},
          {RankKind::kThreads, 4},
          {RankKind::kProcesses, 2},
          {RankKind::kProcesses, 4}};
}

void run_engine_group(const GroupKind& group, const EngineOptions& options,
                      const std::function<void(GroupLeader& leader, const Engine& engine)>& body) {
  run_ranks(group.kind, group.world, [&](Communicator& communicator) {
    const auto backend = make_backend({.device = {}, .threads = 1});
    auto engine = Engine::create(options, *backend, communicator);
    if (!engine.ok()) throw Error(engine.refusal().message);
    if (communicator.rank() != 0) return follow(*engine.value(), communicator);
    GroupLeader leader(*engine.value(), communicator);
    body(leader, *engine.value());
    leader.stop();
  });
}

}  // namespace optserve::test_support
