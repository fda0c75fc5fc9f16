// The two kinds of record in a shared staging folder: which conversion it belongs to, and what is known about a
// finished shard.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace optserve::checkpoint {

// What is known about the weights in a finished shard, and is reported when all shards are finished.
struct ShardNotes {
  uint64_t nonfinite = 0;  // number of accepted weights that are not finite
  std::vector<std::string> warnings;
  bool operator==(const ShardNotes&) const = default;
};

struct ShardRecord {
  uint64_t bytes = 0;
  std::string sha256;
  ShardNotes notes;
  bool operator==(const ShardRecord&) const = default;
};

std::string shard_record_text(const ShardRecord& record);
// Refuses whatever shard_record_text() does not write.
Result<ShardRecord> parse_shard_record(std::string_view text);

// Where two JSON objects that describe conversions differ: "dtype (found \"F16\", expected \"BF16\")"; empty if they
// say the same.
std::string record_difference(std::string_view found, std::string_view expected);

}  // namespace optserve::checkpoint
