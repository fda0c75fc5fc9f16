// How a conversion goes in passes: each writes some of the shards, and what a crash loses is one pass.
#pragma once

#include <cstdint>

namespace optserve::converter {

// Shards that one pass writes, at least one. `pass_mib_max` bounds their bytes; 0: 32 GiB or a quarter of the output,
// whichever is more, so that there are four passes at most. Passes are of even size.
int shards_per_pass(int shards, uint64_t shard_bytes, int64_t pass_mib_max);

}  // namespace optserve::converter
