// Moves the tensors of a SourceReader into the shards of one pass, one tensor at a time and each in pieces of rows;
// casts and quantises them on the way. Reads only the rows that these shards hold; columns are cut out of whole rows.
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
#include "converter/reader/caged_model.h"
#include "converter/write/convert.h"

namespace optserve::converter {

class Mover {
 public:
  // Called with the bytes of this pass that are done and the name of the tensor at work; false cancels.
  using OnProgress = std::function<bool(uint64_t bytes_done, const std::string& tensor)>;

  // `rows`: what is stored, those of `source` or what is made of them. All outlive the object.
  Mover(const SourceReader& source, const RowSource& rows, checkpoint::ShardsWriter& writer,
        const checkpoint::ShardPlan& plan, const ConvertOptions& options, OnProgress on_progress);

  // Refused if a checksum differs, a weight is NaN or infinite (all tensors with such are named), or progress says so.
  Status run();

  // Of each shard of the pass. What concerns all shards stands with shard 0, so that it counts once.
  std::vector<checkpoint::ShardNotes> notes() const;

 private:
  bool move(const model_spec::TensorSpec& spec);
  bool move_by_shard(const model_spec::TensorSpec& spec);
  bool move_by_rows(const model_spec::TensorSpec& spec);
  // Fills piece_ with rows as they are stored; adds their scales to scales_.
  void load(const model_spec::TensorSpec& spec, int64_t row, int64_t count);
  void load_plain(const model_spec::TensorSpec& spec, int64_t row, int64_t count);
  void quantise(const model_spec::TensorSpec& spec, int64_t count);
  // Columns [col_begin, col_begin + cols) of `rows` rows of `row_bytes` that hold `all_cols` columns.
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

  const SourceReader& source_;
  const RowSource& rows_;
  checkpoint::ShardsWriter& writer_;
  const checkpoint::ShardPlan& plan_;
  const ConvertOptions& options_;
  const OnProgress on_progress_;
  const std::vector<int> shards_;  // of the pass
  uint64_t bytes_done_ = 0;
  std::string tensor_;
  std::vector<std::byte> piece_;    // rows as they are stored
  std::vector<std::byte> plain_;    // rows in the output's type, before they are quantised
  std::vector<std::byte> raw_;      // rows in the input's type
  std::vector<std::byte> columns_;  // one shard's columns of rows
  std::vector<float> wide_;
  std::vector<float> scales_;  // of the tensor at work, or of one shard's rows of it
  std::map<int, checkpoint::ShardNotes> notes_;
  uint64_t nonfinite_ = 0;
  uint64_t nonfinite_in_tensor_ = 0;
  bool counts_nonfinite_ = true;  // in the tensor at work
  bool has_unstorable_ = false;   // NaN or infinite weights in a quantised matrix
  std::vector<std::string> faults_;
};

}  // namespace optserve::converter
