#include "converter/write/pass_plan.h"

#include <algorithm>

namespace optserve::converter {
namespace {

constexpr uint64_t kPassBytes = uint64_t{32} << 30;
constexpr uint64_t kPassesMax = 4;

}  // namespace

int shards_per_pass(int shards, uint64_t shard_bytes, int64_t pass_mib_max) {
  const auto count = static_cast<uint64_t>(shards);
  const uint64_t quarter = (count + kPassesMax - 1) / kPassesMax * shard_bytes;
  const uint64_t bytes = pass_mib_max > 0 ? static_cast<uint64_t>(pass_mib_max) << 20 : std::max(kPassBytes, quarter);
  const uint64_t most = std::clamp<uint64_t>(bytes / std::max<uint64_t>(1, shard_bytes), 1, count);
  const uint64_t passes = (count + most - 1) / most;
  return static_cast<int>((count + passes - 1) / passes);
}

}  // namespace optserve::converter
