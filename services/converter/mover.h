// Moves the tensors of a SourceReader into a CheckpointWriter, one at a time and each in pieces of rows; casts and
// quantises them on the way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/writer.h"
#include "converter/convert.h"
#include "converter/source_reader.h"

namespace optserve::converter {

class Mover {
 public:
  // All four outlive the object.
  Mover(const SourceReader& source, checkpoint::CheckpointWriter& writer, const checkpoint::ShardPlan& plan,
        const ConvertOptions& options);

  // Refused if a checksum differs, a weight is NaN or infinite (all tensors with such are named), or progress says so.
  Status run(std::vector<std::string>& warnings);

  uint64_t nonfinite() const { return nonfinite_; }
  uint64_t bytes_done() const { return progress_.bytes_done; }

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
  bool report() const { return !options_.on_progress || options_.on_progress(progress_); }
  Status check_finite() const;

  const SourceReader& source_;
  checkpoint::CheckpointWriter& writer_;
  const checkpoint::ShardPlan& plan_;
  const ConvertOptions& options_;
  ConvertProgress progress_;
  std::vector<std::byte> piece_;    // rows as they are stored
  std::vector<std::byte> plain_;    // rows in the output's type, before they are quantised
  std::vector<std::byte> raw_;      // rows in the input's type
  std::vector<std::byte> columns_;  // one shard's columns of rows
  std::vector<float> wide_;
  std::vector<float> scales_;  // of the tensor at work, or of one shard's rows of it
  uint64_t nonfinite_ = 0;
  uint64_t nonfinite_in_tensor_ = 0;
  bool has_unstorable_ = false;  // NaN or infinite weights in a quantised matrix
  std::vector<std::string> faults_;
};

}  // namespace optserve::converter
