// Converts shards in passes, beside whoever else works in the same staging folder, until all are finished.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "checkpoint/writer.h"
#include "converter/reader/caged_model.h"
#include "converter/write/convert.h"

namespace optserve::converter {

class Passes {
 public:
  // `rows`: what is stored, those of `source` or what is made of them. All outlive the object.
  Passes(const SourceReader& source, const RowSource& rows, checkpoint::SharedStaging& staging,
         const checkpoint::ShardPlan& plan, const ConvertOptions& options);

  // Until every shard is finished by somebody, or the checkpoint published. Refused as a Mover and if the source has
  // changed. Throws Error; then, too, the shards of earlier passes stay finished.
  Status run();

  uint64_t bytes_total() const { return bytes_total_; }

 private:
  Status convert(std::vector<checkpoint::ShardClaim> claims);
  bool wait();
  bool report(uint64_t bytes_of_pass, std::string_view tensor);

  const SourceReader& source_;
  const RowSource& rows_;
  checkpoint::SharedStaging& staging_;
  const checkpoint::ShardPlan& plan_;
  const ConvertOptions& options_;
  const uint64_t shard_bytes_;
  const uint64_t bytes_total_;
  SystemClock clock_;
  Instant next_look_{};
  uint64_t bytes_elsewhere_ = 0;  // finished by anybody, and written by others
};

}  // namespace optserve::converter
