#include "engine/group.h"

#include <exception>

namespace optserve {

GroupLeader::GroupLeader(Engine& engine, Communicator& communicator) : engine_(engine), communicator_(communicator) {
  check_eq(communicator.rank(), 0, "rank that leads");
}

batching::StepResult GroupLeader::lead(const batching::StepPlan& plan) {
  if (communicator_.world() == 1) return engine_.run(plan);
  std::vector<uint8_t> bytes = encode(plan);
  communicator_.broadcast_bytes(bytes, 0);
  try {
    return engine_.run(plan);
  } catch (const std::exception& e) {
    communicator_.abort(std::string("rank 0: ") + e.what());
    throw;
  }
}

void GroupLeader::stop() {
  std::vector<uint8_t> nothing;
  communicator_.broadcast_bytes(nothing, 0);
}

void follow(Engine& engine, Communicator& communicator) {
  try {
    std::vector<uint8_t> bytes;
    for (communicator.broadcast_bytes(bytes, 0); !bytes.empty(); communicator.broadcast_bytes(bytes, 0)) {
      const auto plan = batching::decode_step_plan(bytes);
      if (!plan.ok()) throw Error(plan.refusal().message);
      engine.run(plan.value());
    }
  } catch (const std::exception& e) {
    communicator.abort("rank " + std::to_string(communicator.rank()) + ": " + e.what());
    throw;
  }
}

}  // namespace optserve
