#include "converter/verify/weight_comparison.h"

#include <algorithm>

#include "converter/verify/row_check.h"

namespace optserve::converter {
namespace {

using checkpoint::CheckpointReader;
using model_spec::RowRange;
using model_spec::TensorSpec;

// What one shard stores of the current tensor.
struct ShardBlock {
  model_spec::Block block;
  std::vector<std::byte> values;
  std::vector<float> scales;
  RowCheck check;

  void compare(int64_t row, int64_t stacked_row, std::span<const float> source) {
    const auto rows = static_cast<size_t>(block.row_count()), at = static_cast<size_t>(stacked_row);
    const size_t row_bytes = values.size() / rows, row_scales = scales.size() / rows;
    check.begin_row(row, source);
    check.compare(block.col_begin, std::span(values).subspan(at * row_bytes, row_bytes),
                  std::span(scales).subspan(at * row_scales, row_scales));
  }
};

class Comparison {
 public:
  Comparison(const CheckpointReader& checkpoint, const WeightRows& source) : checkpoint_(checkpoint), source_(source) {}

  void compare(const TensorSpec& spec) {
    read_blocks(spec);
    if (spec.split == model_spec::Split::kRows || spec.split == model_spec::Split::kQkvRows) {
      for (ShardBlock& shard : blocks_) {
        int64_t stacked = 0;  // rows of the block before the run
        for (const RowRange& run : shard.block.rows) {
          compare_rows(spec, run, stacked, {&shard, 1});
          stacked += run.count;
        }
      }
    } else {
      compare_rows(spec, {0, spec.rows}, 0, blocks_);
    }
    report(spec);
  }

  WeightReport take() { return std::move(report_); }

 private:
  void read_blocks(const TensorSpec& spec) {
    const int shards = checkpoint_.manifest().shards;
    const StoredAs stored{checkpoint_.dtype(), spec.quantisable ? checkpoint_.manifest().quantisation : std::nullopt};
    blocks_.clear();
    for (int shard = 0; shard < shards; ++shard) {
      ShardBlock block{model_spec::block_of(spec, shard, shards), {}, {}, RowCheck(stored)};
      block.values.resize(checkpoint_.block_bytes(spec, shards));
      block.scales.resize(static_cast<size_t>(checkpoint_.block_scales(spec, shards)));
      checkpoint_.read_block(spec, shard, shards, block.values);
      checkpoint_.read_scales(spec, shard, shards, block.scales);
      blocks_.push_back(std::move(block));
    }
  }

  // The source's rows `run` against all of `shards`, whose blocks have them from `stacked` on.
  void compare_rows(const TensorSpec& spec, const RowRange& run, int64_t stacked, std::span<ShardBlock> shards) {
    const auto cols = static_cast<size_t>(spec.cols);
    for (int64_t done = 0; done < run.count;) {
      const int64_t count = std::min(rows_per_piece(spec), run.count - done);
      const std::span<const float> rows = source_.read(spec, run.begin + done, count);
      for (int64_t i = 0; i < count; ++i) {
        for (ShardBlock& shard : shards) {
          shard.compare(run.begin + done + i, stacked + done + i, rows.subspan(static_cast<size_t>(i) * cols, cols));
        }
      }
      done += count;
    }
  }

  void report(const TensorSpec& spec) {
    double error_squares = 0, source_squares = 0;
    for (size_t shard = 0; shard < blocks_.size(); ++shard) {
      const RowFindings& found = blocks_[shard].check.findings();
      report_.weights += found.weights;
      report_.worst = std::max(report_.worst, found.worst);
      error_squares += found.error_squares;
      source_squares += found.source_squares;
      if (found.wrong > 0) {
        report_.faults.push_back(
            spec.name + " in " +
            checkpoint::shard_file_name(static_cast<int>(shard), static_cast<int>(blocks_.size())) + ": " +
            std::to_string(found.wrong) + " of " + std::to_string(found.weights) +
            " weights are not the source's; the first at " + found.first_wrong);
      }
    }
    ++report_.tensors;
    if (source_squares > 0) report_.error_squares += error_squares / source_squares;
  }

  const CheckpointReader& checkpoint_;
  WideRows source_;
  std::vector<ShardBlock> blocks_;
  WeightReport report_;
};

}  // namespace

WeightReport compare_weights(const CheckpointReader& checkpoint, const WeightRows& source,
                             const std::function<bool()>& goes_on) {
  Comparison comparison(checkpoint, source);
  for (const TensorSpec& spec : checkpoint.tensors()) {
    if (!goes_on()) break;
    comparison.compare(spec);
  }
  return comparison.take();
}

}  // namespace optserve::converter
