#include "support/engine_group.h"

namespace optserve::test_support {

std::string group_name(const GroupKind& group) {
  return comm::rank_kind_name(group.kind) + std::to_string(group.world);
}

std::vector<GroupKind> all_groups() {
  return {{comm::RankKind::kSolo, 1},
          {comm::RankKind::kThreads, 2},
          {comm::RankKind::kThreads, 4},
          {comm::RankKind::kProcesses, 2},
          {comm::RankKind::kProcesses, 4}};
}

void run_engine_group(const GroupKind& group, const engine::EngineOptions& options,
                      const std::function<void(engine::GroupLeader& leader, const engine::Engine& engine)>& body) {
  comm::run_ranks(group.kind, group.world, [&](comm::Communicator& communicator) {
    const auto backend = backend::make_backend({.device = {}, .threads = 1});
    auto engine = engine::Engine::create(options, *backend, communicator);
    if (!engine.ok()) throw Error(engine.refusal().message);
    if (communicator.rank() != 0) return follow(*engine.value(), communicator);
    engine::GroupLeader leader(*engine.value(), communicator);
    body(leader, *engine.value());
    leader.stop();
  });
}

}  // namespace optserve::test_support
