// How the ranks of a group execute steps together: rank 0 sends each plan as bytes, and the others follow.
#pragma once

#include "batching/step_plan.h"
#include "comm/communicator.h"
#include "engine/engine.h"

namespace optserve::engine {

// The side of rank 0. Engine and communicator must outlive it.
class GroupLeader {
 public:
  GroupLeader(Engine& engine, comm::Communicator& communicator);
  // Sends the plan to the followers and starts it, as they do; see Engine::start(). Throws Error when a peer is gone;
  // the group has then ended.
  void start(const batching::StepPlan& plan);
  // See Engine::finish().
  batching::StepResult finish();
  bool can_start() const { return engine_.in_flight() < engine_.depth(); }
  int in_flight() const { return engine_.in_flight(); }
  // Lets the followers return from follow(). No step may be started afterwards.
  void stop();

 private:
  template <class Call>
  auto or_abort(const Call& call);

  Engine& engine_;
  comm::Communicator& communicator_;
};

// The side of the other ranks: executes plans until the leader stops. Throws Error when a peer is gone.
void follow(Engine& engine, comm::Communicator& communicator);

}  // namespace optserve::engine
