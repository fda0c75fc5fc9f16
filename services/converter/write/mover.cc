#include "converter/write/mover.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace optserve::converter {
namespace {

using model_spec::Split;
using model_spec::TensorSpec;

constexpr size_t kTensorsNamed = 10;  // of those that hold weights which are not finite

}  // namespace

Mover::Mover(const Conversion& conversion, checkpoint::ShardsWriter& writer, OnProgress on_progress)
    : conversion_(conversion),
      plan_(conversion.plan),
      writer_(writer),
      on_progress_(std::move(on_progress)),
      shards_(writer.shards()),
      rows_(conversion.rows, conversion.plan) {}

Status Mover::run() {
  for (const TensorSpec& spec : model_spec::opt_tensors(plan_.config)) {
    tensor_ = spec.name;
    if (conversion_.options.check_source) {
      if (Status status = conversion_.source.check_bytes(spec); !status.ok()) return status;
    }
    if (has_first_shard() && !conversion_.source.replicas_agree(spec)) {
      notes_[0].warnings.push_back(spec.name + " differs between parts; the first part's is used");
    }
    nonfinite_in_tensor_ = 0;
    if (!move(spec)) return refuse(ErrorCode::kCancelled, "the conversion was cancelled");
    if (nonfinite_in_tensor_ > 0) {
      faults_.push_back(spec.name + ": " + std::to_string(nonfinite_in_tensor_) + " of " +
                        std::to_string(spec.elements()));
    }
    nonfinite_ += nonfinite_in_tensor_;
  }
  return check_finite();
}

std::vector<checkpoint::ShardNotes> Mover::notes() const {
  std::vector<checkpoint::ShardNotes> found;
  for (const int shard : shards_) {
    const auto noted = notes_.find(shard);
    found.push_back(noted == notes_.end() ? checkpoint::ShardNotes{} : noted->second);
  }
  return found;
}

bool Mover::move(const TensorSpec& spec) {
  const bool has_row_runs = spec.split == Split::kRows || spec.split == Split::kQkvRows;
  return has_row_runs ? move_by_shard(spec) : move_by_rows(spec);
}

// Row runs of one shard after the other: each row is read once.
bool Mover::move_by_shard(const TensorSpec& spec) {
  counts_nonfinite_ = true;
  for (const int shard : shards_) {
    scales_.clear();
    const uint64_t before = nonfinite_in_tensor_;
    for (const model_spec::RowRange& range : model_spec::block_of(spec, shard, plan_.shards).rows) {
      for (int64_t row = range.begin; row < range.begin + range.count;) {
        const int64_t count = std::min(rows_per_piece(spec), range.begin + range.count - row);
        append(shard, load(spec, row, count));
        row += count;
        if (!report()) return false;
      }
    }
    append(shard, std::as_bytes(std::span(scales_)));
    notes_[shard].nonfinite += nonfinite_in_tensor_ - before;
  }
  return true;
}

// Reads all rows in order; every shard takes its own columns, or, of replicated tensors, all columns.
bool Mover::move_by_rows(const TensorSpec& spec) {
  // The pass of the first shard sees these rows whole as well, and no checkpoint is published without it.
  counts_nonfinite_ = has_first_shard() || !is_plain(format_of(spec, plan_));
  scales_.clear();
  for (int64_t row = 0; row < spec.rows;) {
    const int64_t count = std::min(rows_per_piece(spec), spec.rows - row);
    const std::span<const std::byte> rows = load(spec, row, count);
    for (const int shard : shards_) {
      const model_spec::Block block = model_spec::block_of(spec, shard, plan_.shards);
      append_columns(shard, rows, {rows.size() / static_cast<size_t>(count), spec.cols, block.col_begin, block.cols});
    }
    row += count;
    if (!report()) return false;
  }
  if (has_first_shard()) notes_[0].nonfinite += nonfinite_in_tensor_;
  if (scales_.empty()) return true;
  // A scale of whole rows belongs to every shard, one of a group to the shard that has the group.
  const int64_t scales_of_row = static_cast<int64_t>(scales_.size()) / spec.rows;
  for (const int shard : shards_) {
    const model_spec::Block block = model_spec::block_of(spec, shard, plan_.shards);
    const bool is_whole = scales_of_row == 1;
    append_columns(shard, std::as_bytes(std::span(scales_)),
                   {static_cast<size_t>(scales_of_row) * sizeof(float), spec.cols, is_whole ? 0 : block.col_begin,
                    is_whole ? spec.cols : block.cols});
  }
  return true;
}

void Mover::append_columns(int shard, std::span<const std::byte> rows, const Cut& cut) {
  if (cut.cols == cut.all_cols) return append(shard, rows);
  const auto at = [&](int64_t cols) {
    return cut.row_bytes * static_cast<size_t>(cols) / static_cast<size_t>(cut.all_cols);
  };
  const size_t bytes = at(cut.cols);
  const size_t count = rows.size() / cut.row_bytes;
  columns_.resize(count * bytes);
  for (size_t i = 0; i < count; ++i) {
    std::memcpy(columns_.data() + i * bytes, rows.data() + i * cut.row_bytes + at(cut.col_begin), bytes);
  }
  append(shard, columns_);
}

std::span<const std::byte> Mover::load(const TensorSpec& spec, int64_t row, int64_t count) {
  const StoredRows::Piece piece = rows_.read(spec, row, count, counts_nonfinite_);
  scales_.insert(scales_.end(), piece.scales.begin(), piece.scales.end());
  nonfinite_in_tensor_ += piece.nonfinite;
  has_unstorable_ = has_unstorable_ || (piece.nonfinite > 0 && !piece.scales.empty());
  return piece.values;
}

void Mover::append(int shard, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  writer_.append(shard, bytes);
  bytes_done_ += bytes.size();
}

Status Mover::check_finite() const {
  if (faults_.empty() || (conversion_.options.allow_nonfinite && !has_unstorable_)) return ok_status();
  std::string text = std::to_string(nonfinite_) + " weights are NaN or infinite in " +
                     std::string(dtype_name(plan_.dtype)) + "; nothing was written:";
  if (conversion_.options.allow_nonfinite) text.insert(0, "quantised matrices cannot hold such weights: ");
  for (size_t i = 0; i < std::min(faults_.size(), kTensorsNamed); ++i) text += "\n  " + faults_[i];
  if (faults_.size() > kTensorsNamed) {
    text += "\n  and " + std::to_string(faults_.size() - kTensorsNamed) + " more tensors";
  }
  return refuse(ErrorCode::kDataCorrupt, text);
}

}  // namespace optserve::converter
