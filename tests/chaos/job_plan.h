// Makes the nth job of a client. It depends only on the seed, so that a client that was killed makes the same jobs
// again.
#pragma once

#include <cstdint>

#include "protocol/message_types.h"

namespace optserve::chaos {

// Jobs differ in prompt, sampling and length. Jobs of the same variant must get the same text, whatever happens to
// them.
inline constexpr size_t kVariants = 16;
protocol::JobSpec variant_spec(size_t variant);

struct PlannedJob {
  protocol::JobSpec spec;
  size_t variant = 0;
  bool is_short_lived = false;   // its time to live is so short that it may be refused for it, or expire
  int64_t cancel_after_ms = -1;  // after its acceptance; -1: never
  bool submit_again = false;     // submit the same job once more after its acceptance
  bool conflict = false;         // submit another payload under its key after its acceptance
};

PlannedJob plan_job(uint64_t seed, int client, uint64_t number);

}  // namespace optserve::chaos
