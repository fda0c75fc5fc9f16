#include "converter/write/passes.h"

#include <algorithm>
#include <thread>

#include "converter/write/mover.h"

namespace optserve::converter {
namespace {

constexpr uint64_t kPassBytes = uint64_t{32} << 30;
constexpr uint64_t kPassesMax = 4;
constexpr milliseconds kLookInterval{500};  // from one look at what others have done to the next
constexpr milliseconds kWaitStep{50};
constexpr int kStepsPerTry = 4;  // from one look for a free shard to the next

Refusal cancelled() { return refuse(ErrorCode::kCancelled, "the conversion was cancelled"); }

}  // namespace

int shards_per_pass(int shards, uint64_t shard_bytes, int64_t pass_mib_max) {
  const auto count = static_cast<uint64_t>(shards);
  const uint64_t quarter = (count + kPassesMax - 1) / kPassesMax * shard_bytes;
  const uint64_t bytes = pass_mib_max > 0 ? static_cast<uint64_t>(pass_mib_max) << 20 : std::max(kPassBytes, quarter);
  const uint64_t most = std::clamp<uint64_t>(bytes / std::max<uint64_t>(1, shard_bytes), 1, count);
  const uint64_t passes = (count + most - 1) / most;
  return static_cast<int>((count + passes - 1) / passes);
}

Passes::Passes(const Conversion& conversion, checkpoint::SharedStaging& staging, const Clock& clock)
    : conversion_(conversion),
      staging_(staging),
      clock_(clock),
      shards_(conversion.plan.shards),
      shard_bytes_(checkpoint::shard_bytes(conversion.plan)),
      bytes_total_(shard_bytes_ * static_cast<uint64_t>(shards_)) {}

Status Passes::run() {
  const int shards_max = shards_per_pass(shards_, shard_bytes_, conversion_.options.pass_mib_max);
  while (!staging_.is_published() && staging_.finished() < shards_) {
    std::vector<checkpoint::ShardClaim> claims = staging_.claim(shards_max);
    if (claims.empty()) {
      if (!wait()) return cancelled();
    } else if (Status status = convert(std::move(claims)); !status.ok()) {
      return status;
    }
    next_look_ = {};
  }
  const OnConvertProgress& on_progress = conversion_.options.on_progress;
  return !on_progress || on_progress({bytes_total_, bytes_total_, {}}) ? ok_status() : cancelled();
}

Status Passes::convert(std::vector<checkpoint::ShardClaim> claims) {
  checkpoint::ShardsWriter writer(staging_, conversion_.plan, std::move(claims));
  Mover mover(conversion_, writer,
              [this](uint64_t bytes_done, const std::string& tensor) { return report(bytes_done, tensor); });
  if (Status status = mover.run(); !status.ok()) return status;
  if (Status status = conversion_.source.check_unchanged(); !status.ok()) return status;
  writer.finish(mover.notes());
  return ok_status();
}

// Other processes have all shards that are left. Waits for a moment, since one of them may end before its shard is
// finished.
bool Passes::wait() {
  for (int step = 0; step < kStepsPerTry; ++step) {
    if (!report(0, "(waiting for other converters)")) return false;
    std::this_thread::sleep_for(kWaitStep);
  }
  return true;
}

bool Passes::report(uint64_t bytes_of_pass, std::string_view tensor) {
  const OnConvertProgress& on_progress = conversion_.options.on_progress;
  if (!on_progress) return true;
  if (const Instant now = clock_.now(); now >= next_look_) {
    next_look_ = now + kLookInterval;
    bytes_elsewhere_ = static_cast<uint64_t>(staging_.finished()) * shard_bytes_ + staging_.bytes_of_others();
  }
  return on_progress({std::min(bytes_elsewhere_ + bytes_of_pass, bytes_total_), bytes_total_, tensor});
}

}  // namespace optserve::converter
