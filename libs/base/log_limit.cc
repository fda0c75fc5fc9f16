#include "base/log_limit.h"

#include <algorithm>
#include <utility>

namespace optserve {

std::optional<uint64_t> LogLimit::admit(std::string_view event, Instant now) {
  auto found = buckets_.find(event);
  if (found == buckets_.end()) {
    if (buckets_.size() >= kEventsMax) return 0;
    found = buckets_.emplace(std::string(event), Bucket{.filled = now}).first;
  }
  Bucket& bucket = found->second;
  const double passed = std::max(0.0, std::chrono::duration<double>(now - bucket.filled).count());
  bucket.lines = std::min(kBurst, bucket.lines + passed * kPerSecond);
  bucket.filled = std::max(bucket.filled, now);
  if (bucket.lines < 1) {
    ++bucket.left_out;
    return std::nullopt;
  }
  bucket.lines -= 1;
  return std::exchange(bucket.left_out, 0);
}

}  // namespace optserve
