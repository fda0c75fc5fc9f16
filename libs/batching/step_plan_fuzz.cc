#include "batching/step_plan.h"

// What can be decoded must stay the same when it is encoded and decoded again.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto plan = optserve::batching::decode_step_plan({data, size});
  if (plan.ok()) {
    const auto bytes = optserve::batching::encode(plan.value());
    optserve::check(optserve::batching::decode_step_plan(bytes).ok(), "an encoded plan decodes");
  }
  return 0;
}
