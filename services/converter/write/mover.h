// Moves the tensors of a model into the shards of one pass, one tensor after the other and each in pieces of rows.
// Reads only the rows that these shards hold; where shards share columns, they are cut out of whole rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/writer.h"
#include "converter/transform/stored_rows.h"
#include "converter/write/conversion.h"

namespace optserve::converter {

class Mover {
 public:
  // Called with the bytes of this pass that are done and the name of the tensor at work; false cancels.
  using OnProgress = std::function<bool(uint64_t bytes_done, const std::string& tensor)>;

  // Both outlive the object.
  Mover(const Conversion& conversion, checkpoint::ShardsWriter& writer, OnProgress on_progress);

  // Refused if a checksum differs, if weights are NaN or infinite (all tensors that hold some are named), and if
  // progress says so.
  Status run();

  // Of each shard of the pass. What concerns all shards is noted for shard 0 alone, so that it counts once.
  std::vector<checkpoint::ShardNotes> notes() const;

 private:
  bool move(const model_spec::TensorSpec& spec);
  bool move_by_shard(const model_spec::TensorSpec& spec);
  bool move_by_rows(const model_spec::TensorSpec& spec);
  // The next rows as they are stored, and their scales at the end of scales_.
  std::span<const std::byte> load(const model_spec::TensorSpec& spec, int64_t row, int64_t count);
  // Columns [col_begin, col_begin + cols) of rows that have `all_cols` columns in `row_bytes` bytes.
  struct Cut {
    size_t row_bytes = 0;
    int64_t all_cols = 0;
    int64_t col_begin = 0;
    int64_t cols = 0;
  };
  void append_columns(int shard, std::span<const std::byte> rows, const Cut& cut);
  void append(int shard, std::span<const std::byte> bytes);
  bool report() const { return on_progress_(bytes_done_, tensor_); }
  bool has_first_shard() const { return shards_.front() == 0; }
  Status check_finite() const;

  const Conversion& conversion_;
  const checkpoint::ShardPlan& plan_;
  checkpoint::ShardsWriter& writer_;
  const OnProgress on_progress_;
  const std::vector<int> shards_;  // of the pass
  StoredRows rows_;
  uint64_t bytes_done_ = 0;
  std::string tensor_;
  std::vector<std::byte> columns_;  // one shard's columns of rows
  std::vector<float> scales_;       // of the tensor at work, or of one shard's rows of it
  std::map<int, checkpoint::ShardNotes> notes_;
  uint64_t nonfinite_ = 0;
  uint64_t nonfinite_in_tensor_ = 0;
  bool counts_nonfinite_ = true;  // in the tensor at work
  bool has_unstorable_ = false;   // NaN or infinite weights in a quantised matrix
  std::vector<std::string> faults_;
};

}  // namespace optserve::converter
