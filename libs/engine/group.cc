#include "engine/group.h"

#include <exception>

namespace optserve::engine {

GroupLeader::GroupLeader(Engine& engine, comm::Communicator& communicator)
    : engine_(engine), communicator_(communicator) {
  check_eq(communicator.rank(), 0, "rank that leads");
}

// A failure on rank 0 ends the group, since the followers would otherwise wait forever.
template <class Call>
auto GroupLeader::or_abort(const Call& call) {
  try {
    return call();
  } catch (const std::exception& e) {
    if (communicator_.world() > 1) communicator_.abort(std::string("rank 0: ") + e.what());
    throw;
  }
}

void GroupLeader::start(const batching::StepPlan& plan) {
  if (communicator_.world() > 1) {
    std::vector<uint8_t> bytes = encode(plan);
    communicator_.broadcast_bytes(bytes, 0);
  }
  or_abort([&] { engine_.start(plan); });
}

batching::StepResult GroupLeader::finish() {
  return or_abort([&] { return engine_.finish(); });
}

void GroupLeader::stop() {
  std::vector<uint8_t> nothing;
  communicator_.broadcast_bytes(nothing, 0);
}

void follow(Engine& engine, comm::Communicator& communicator) {
  try {
    std::vector<uint8_t> bytes;
    for (communicator.broadcast_bytes(bytes, 0); !bytes.empty(); communicator.broadcast_bytes(bytes, 0)) {
      const auto plan = batching::decode_step_plan(bytes);
      if (!plan.ok()) throw Error(plan.refusal().message);
      if (engine.in_flight() == engine.depth()) engine.finish();
      engine.start(plan.value());
    }
    while (engine.in_flight() > 0) engine.finish();
  } catch (const std::exception& e) {
    communicator.abort("rank " + std::to_string(communicator.rank()) + ": " + e.what());
    throw;
  }
}

}  // namespace optserve::engine
