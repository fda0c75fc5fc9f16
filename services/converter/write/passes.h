// Converts shards in passes until all are finished, together with other processes that work in the same staging folder.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "checkpoint/writer.h"
#include "converter/write/conversion.h"

namespace optserve::converter {

// How many shards one pass writes, at least one; what a crash loses is one pass. `pass_mib_max` bounds their bytes; 0
// means 32 GiB or a quarter of the output, whichever is more, so that there are four passes at most. Passes are of even
// size.
int shards_per_pass(int shards, uint64_t shard_bytes, int64_t pass_mib_max);

class Passes {
 public:
  // All outlive the object.
  Passes(const Conversion& conversion, checkpoint::SharedStaging& staging, const Clock& clock);

  // Returns when every shard is finished, by whichever process, or the checkpoint published. Refused for the reasons of
  // a Mover, and if the source has changed. Throws Error. In all cases the shards of earlier passes stay finished.
  Status run();

  uint64_t bytes_total() const { return bytes_total_; }

 private:
  Status convert(std::vector<checkpoint::ShardClaim> claims);
  bool wait();
  bool report(uint64_t bytes_of_pass, std::string_view tensor);

  const Conversion& conversion_;
  checkpoint::SharedStaging& staging_;
  const Clock& clock_;
  const int shards_;
  const uint64_t shard_bytes_;
  const uint64_t bytes_total_;
  Instant next_look_{};
  uint64_t bytes_elsewhere_ = 0;  // of finished shards, and of those that other processes write
};

}  // namespace optserve::converter
