// An operator's program: holds and resumes queues, models and workers, puts dead jobs back, purges ended ones, looks at
// groups and cancels them. After the faults it resumes whatever may be held.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "simulation/nodes/client_node.h"
#include "simulation/nodes/worker_node.h"

namespace optserve::simulation {

class OperatorNode final : public SessionProcess {
 public:
  OperatorNode(Environment& environment, Network& network, Ledger& ledger, std::vector<WorkerNode*> workers);
  bool is_done() const { return done_; }

 private:
  using Target = std::pair<protocol::ControlScope, std::string>;
  struct Held {
    Target target;
    Instant until{};
  };
  void on_crash() override;
  void on_turn() override;
  void act();
  void hold();
  void put_back();
  void purge();
  void ask_group();
  void resume(const Target& target);
  void resume_all();
  template <class F>
  void call(protocol::Message request, F&& answered);

  Ledger& ledger_;
  const std::vector<WorkerNode*> workers_;
  const Duration pace_;
  Instant next_act_{};
  std::vector<Held> held_;
  Instant healed_at_ = Instant::max();
  size_t resuming_ = 0, not_resumed_ = 0;  // of the present round over all targets
  bool done_ = false;
};

}  // namespace optserve::simulation
