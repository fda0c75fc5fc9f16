// How the ranks of a group execute steps together: rank 0 relays each plan as bytes, the others follow.
#pragma once

#include "batching/step_plan.h"
#include "comm/communicator.h"
#include "engine/engine.h"

namespace optserve::engine {

// Rank 0's side. Engine and communicator must outlive it.
class GroupLeader {
 public:
  GroupLeader(Engine& engine, comm::Communicator& communicator);
  // Sends the plan to the followers and starts it with them; see Engine::start(). Throws Error when a peer is gone; the
  // group has then ended.
  void start(const batching::StepPlan& plan);
  // See Engine::finish().
  batching::StepResult finish();
  bool can_start() const { return engine_.in_flight() < engine_.depth(); }
  int in_flight() const { return engine_.in_flight(); }
  // Lets the followers return from follow(). Nothing may be led afterwards.
  void stop();

 private:
  template <class Call>
  auto or_abort(const Call& call);

  Engine& engine_;
  comm::Communicator& communicator_;
};

// The other ranks' side: executes plans until the leader stops. Throws Error when a peer is gone.
void follow(Engine& engine, comm::Communicator& communicator);

}  // namespace optserve::engine
