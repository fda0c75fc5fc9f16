#include "converter/write/mover.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "quant/quantise.h"

namespace optserve::converter {
namespace {

using model_spec::Split;
using model_spec::TensorSpec;
using tensor::DType;

constexpr int64_t kPieceElements =
    512 << 10;                              // of one read: what stays in the processor's cache from there to the hash
constexpr size_t kCastElements = 16 << 10;  // of one pass through fp32
constexpr size_t kWeightFaultsShown = 10;

// Elements that are NaN or infinite.
uint64_t count_nonfinite(std::span<const std::byte> bytes, DType dtype) {
  uint64_t count = 0;
  if (dtype == DType::kF32) {
    for (size_t i = 0; i < bytes.size(); i += 4) {
      uint32_t bits;
      std::memcpy(&bits, bytes.data() + i, sizeof bits);
      count += (bits & 0x7f800000u) == 0x7f800000u;
    }
    return count;
  }
  const uint16_t exponent = dtype == DType::kF16 ? 0x7c00 : 0x7f80;
  for (size_t i = 0; i < bytes.size(); i += 2) {
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + i, sizeof bits);
    count += (bits & exponent) == exponent;
  }
  return count;
}

int64_t rows_per_piece(const TensorSpec& spec) { return std::max<int64_t>(1, kPieceElements / spec.cols); }

}  // namespace

Mover::Mover(const SourceReader& source, const RowSource& rows, checkpoint::ShardsWriter& writer,
             const checkpoint::ShardPlan& plan, const ConvertOptions& options, OnProgress on_progress)
    : source_(source),
      rows_(rows),
      writer_(writer),
      plan_(plan),
      options_(options),
      on_progress_(std::move(on_progress)),
      shards_(writer.shards()) {}

Status Mover::run() {
  for (const TensorSpec& spec : model_spec::opt_tensors(plan_.config)) {
    tensor_ = spec.name;
    if (options_.check_source)
      if (Status status = source_.check_bytes(spec); !status.ok()) return status;
    if (has_first_shard() && !source_.replicas_agree(spec))
      notes_[0].warnings.push_back(spec.name + " differs between parts; the first part's is used");
    nonfinite_in_tensor_ = 0;
    if (!move(spec)) return refuse(ErrorCode::kCancelled, "the conversion was cancelled");
    if (nonfinite_in_tensor_ > 0)
      faults_.push_back(spec.name + ": " + std::to_string(nonfinite_in_tensor_) + " of " +
                        std::to_string(spec.elements()));
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
        load(spec, row, count);
        append(shard, piece_);
        row += count;
        if (!report()) return false;
      }
    }
    append(shard, std::as_bytes(std::span(scales_)));
    notes_[shard].nonfinite += nonfinite_in_tensor_ - before;
  }
  return true;
}

// All rows in order; every shard takes its columns, which for replicated tensors are all of them.
bool Mover::move_by_rows(const TensorSpec& spec) {
  // The pass of the first shard sees these rows whole as well, and no checkpoint is published without it.
  counts_nonfinite_ = has_first_shard() || !is_plain(format_of(spec, plan_));
  scales_.clear();
  for (int64_t row = 0; row < spec.rows;) {
    const int64_t count = std::min(rows_per_piece(spec), spec.rows - row);
    load(spec, row, count);
    for (const int shard : shards_) {
      const model_spec::Block block = model_spec::block_of(spec, shard, plan_.shards);
      append_columns(shard, piece_,
                     {piece_.size() / static_cast<size_t>(count), spec.cols, block.col_begin, block.cols});
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
  for (size_t i = 0; i < count; ++i)
    std::memcpy(columns_.data() + i * bytes, rows.data() + i * cut.row_bytes + at(cut.col_begin), bytes);
  append(shard, columns_);
}

void Mover::load(const TensorSpec& spec, int64_t row, int64_t count) {
  const uint64_t before = nonfinite_in_tensor_;
  load_plain(spec, row, count);
  if (is_plain(format_of(spec, plan_))) return;
  plain_.swap(piece_);
  if (nonfinite_in_tensor_ == before) return quantise(spec, count);
  // The conversion is going to be refused; what is stored until then does not matter.
  has_unstorable_ = true;
  std::ranges::fill(plain_, std::byte{0});
  quantise(spec, count);
}

void Mover::load_plain(const TensorSpec& spec, int64_t row, int64_t count) {
  const DType from = rows_.dtype(spec);
  const auto elements = static_cast<size_t>(count * spec.cols);
  std::vector<std::byte>& raw = from == plan_.dtype ? piece_ : raw_;
  raw.resize(elements * tensor::dtype_bytes(from));
  rows_.read_rows(spec, row, count, raw);
  if (from != plan_.dtype) {
    piece_.resize(elements * tensor::dtype_bytes(plan_.dtype));
    wide_.resize(kCastElements);
    for (size_t at = 0; at < elements; at += kCastElements) {
      const size_t length = std::min(kCastElements, elements - at);
      tensor::convert_to_f32(raw.data() + at * tensor::dtype_bytes(from), from, wide_.data(), length);
      tensor::convert_from_f32(wide_.data(), plan_.dtype, piece_.data() + at * tensor::dtype_bytes(plan_.dtype),
                               length);
    }
  }
  if (counts_nonfinite_) nonfinite_in_tensor_ += count_nonfinite(piece_, plan_.dtype);
}

// plain_ to piece_ and scales_, a row at a time: it stays in the cache between the passes.
void Mover::quantise(const TensorSpec& spec, int64_t count) {
  const Quantisation& how = *plan_.quantisation;
  const auto rows = static_cast<size_t>(count), cols = static_cast<size_t>(spec.cols);
  const size_t row_bytes =
      static_cast<size_t>(elements_per_row(how.format, spec.cols)) * dtype_bytes(info(how.format).storage);
  const auto row_scales = static_cast<size_t>(scales_per_row(how.format, spec.cols));
  piece_.resize(rows * row_bytes);
  wide_.resize(cols);
  const size_t scales_before = scales_.size();
  scales_.resize(scales_before + rows * row_scales);
  for (size_t i = 0; i < rows; ++i) {
    tensor::convert_to_f32(plain_.data() + i * cols * dtype_bytes(plan_.dtype), plan_.dtype, wide_.data(), cols);
    quantise_rows(how, wide_, spec.cols, std::span(piece_).subspan(i * row_bytes, row_bytes),
                  std::span(scales_).subspan(scales_before + i * row_scales, row_scales));
  }
}

void Mover::append(int shard, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  writer_.append(shard, bytes);
  bytes_done_ += bytes.size();
}

Status Mover::check_finite() const {
  if (faults_.empty() || (options_.allow_nonfinite && !has_unstorable_)) return ok_status();
  std::string text = std::to_string(nonfinite_) + " weights are NaN or infinite in " +
                     std::string(tensor::dtype_name(plan_.dtype)) + "; nothing was written:";
  if (options_.allow_nonfinite) text.insert(0, "quantised matrices cannot hold such weights: ");
  for (size_t i = 0; i < std::min(faults_.size(), kWeightFaultsShown); ++i) text += "\n  " + faults_[i];
  if (faults_.size() > kWeightFaultsShown)
    text += "\n  and " + std::to_string(faults_.size() - kWeightFaultsShown) + " more tensors";
  return refuse(ErrorCode::kDataCorrupt, text);
}

}  // namespace optserve::converter
