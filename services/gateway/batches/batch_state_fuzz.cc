// Any bytes as requests for batches, as stored states, and as uploads: refused, or read as something valid.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "gateway/batches/batch_state.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (const auto request = gateway::parse_batch(input); request.ok()) {
    check(gateway::window_seconds(request.value().completion_window).has_value(), "a window that is checked");
    check(gateway::parse_state(gateway::state_text(request.value())).has_value(), "a state that can be stored");
  }
  if (const auto state = gateway::parse_state(input)) {
    check(!nlohmann::json::parse(gateway::batch_body(*state)).empty(), "an answer that clients can read");
  }
  return 0;
}
