#include "converter/write/passes.h"

#include <algorithm>
#include <thread>

#include "converter/write/mover.h"
#include "converter/write/pass_plan.h"

namespace optserve::converter {
namespace {

constexpr milliseconds kLookInterval{500};  // at what others have done
constexpr milliseconds kWaitStep{50};
constexpr int kStepsPerTry = 4;  // whether a shard that another one wrote is free

Refusal cancelled() { return refuse(ErrorCode::kCancelled, "the conversion was cancelled"); }

}  // namespace

Passes::Passes(const SourceReader& source, const RowSource& rows, checkpoint::SharedStaging& staging,
               const checkpoint::ShardPlan& plan, const ConvertOptions& options)
    : source_(source),
      rows_(rows),
      staging_(staging),
      plan_(plan),
      options_(options),
      shard_bytes_(checkpoint::shard_bytes(plan)),
      bytes_total_(shard_bytes_ * static_cast<uint64_t>(plan.shards)) {}

Status Passes::run() {
  const int shards_max = shards_per_pass(plan_.shards, shard_bytes_, options_.pass_mib_max);
  while (!staging_.is_published() && staging_.finished() < plan_.shards) {
    std::vector<checkpoint::ShardClaim> claims = staging_.claim(shards_max);
    if (claims.empty()) {
      if (!wait()) return cancelled();
    } else if (Status status = convert(std::move(claims)); !status.ok()) {
      return status;
    }
    next_look_ = {};
  }
  return !options_.on_progress || options_.on_progress({bytes_total_, bytes_total_, {}}) ? ok_status() : cancelled();
}

Status Passes::convert(std::vector<checkpoint::ShardClaim> claims) {
  checkpoint::ShardsWriter writer(staging_, plan_, std::move(claims));
  Mover mover(source_, rows_, writer, plan_, options_,
              [this](uint64_t bytes_done, const std::string& tensor) { return report(bytes_done, tensor); });
  if (Status status = mover.run(); !status.ok()) return status;
  if (Status status = source_.check_unchanged(); !status.ok()) return status;
  writer.finish(mover.notes());
  return ok_status();
}

// All that is left is with others: waits for a moment, since one of them may end without finishing it.
bool Passes::wait() {
  for (int step = 0; step < kStepsPerTry; ++step) {
    if (!report(0, "(waiting for other converters)")) return false;
    std::this_thread::sleep_for(kWaitStep);
  }
  return true;
}

bool Passes::report(uint64_t bytes_of_pass, std::string_view tensor) {
  if (!options_.on_progress) return true;
  if (const Instant now = clock_.now(); now >= next_look_) {
    next_look_ = now + kLookInterval;
    bytes_elsewhere_ = static_cast<uint64_t>(staging_.finished()) * shard_bytes_ + staging_.bytes_of_others();
  }
  return options_.on_progress({std::min(bytes_elsewhere_ + bytes_of_pass, bytes_total_), bytes_total_, tensor});
}

}  // namespace optserve::converter
