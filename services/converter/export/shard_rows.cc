#include "converter/export/shard_rows.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace optserve::converter {

using model_spec::Block;
using model_spec::RowRange;
using model_spec::TensorSpec;

Result<ShardRows> ShardRows::open(const checkpoint::CheckpointReader& checkpoint) {
  const checkpoint::Manifest& manifest = checkpoint.manifest();
  if (manifest.quantisation) {
    return refuse(ErrorCode::kUnsupportedFormat, checkpoint.folder() + ": its weights are quantised (" +
                                                     std::string(quant::quantisation_name(*manifest.quantisation)) +
                                                     "); export the checkpoint that it was made from");
  }
  ShardRows rows;
  rows.config_ = checkpoint.config();
  rows.dtype_ = manifest.dtype;
  for (int shard = 0; shard < manifest.shards; ++shard) {
    auto file =
        checkpoint::InputFile::open(checkpoint.folder() + "/" + checkpoint::shard_file_name(shard, manifest.shards));
    if (!file.ok()) return file.refusal();
    Result<checkpoint::SafetensorsHeader> header = checkpoint::read_safetensors(*file.value());
    if (!header.ok()) return header.refusal();
    rows.shards_.push_back({std::move(file).value(), std::move(header).value()});
  }
  return rows;
}

// Copies the part of `wanted` that one shard's block holds.
void ShardRows::read_block_rows(const Shard& shard, const TensorSpec& spec, const Block& block, const Rectangle& wanted,
                                std::span<std::byte> out) const {
  const auto element = static_cast<int64_t>(dtype_bytes(dtype_));
  const int64_t left = std::max(wanted.col, block.col_begin);
  const int64_t right = std::min(wanted.col + wanted.cols, block.col_begin + block.cols);
  if (left >= right) return;
  const checkpoint::StoredTensor* stored = shard.header.find(spec.name);
  check(stored != nullptr, "ShardRows: no tensor " + spec.name);
  std::vector<std::byte> piece;
  int64_t stacked = 0;  // rows of the block before this run
  for (const RowRange& run : block.rows) {
    const int64_t begin = std::max(wanted.rows.begin, run.begin);
    const int64_t count = std::min(wanted.rows.begin + wanted.rows.count, run.begin + run.count) - begin;
    const int64_t row = stacked + begin - run.begin;
    stacked += run.count;
    if (count <= 0) continue;
    std::byte* to = out.data() + ((begin - wanted.rows.begin) * wanted.cols + left - wanted.col) * element;
    const uint64_t offset = stored->offset + static_cast<uint64_t>(row * block.cols * element);
    const auto bytes = static_cast<size_t>(count * block.cols * element);
    if (block.col_begin == wanted.col && block.cols == wanted.cols) {
      shard.file->read_at(offset, {to, bytes});
      continue;
    }
    piece.resize(bytes);
    shard.file->read_at(offset, piece);
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(to + i * wanted.cols * element, piece.data() + (i * block.cols + left - block.col_begin) * element,
                  static_cast<size_t>((right - left) * element));
    }
  }
}

void ShardRows::read(const TensorSpec& spec, RowRange rows, int64_t col, int64_t cols, std::span<std::byte> out) const {
  check_eq(out.size(), static_cast<size_t>(rows.count * cols) * dtype_bytes(dtype_),
           "ShardRows::read: bytes of " + spec.name);
  const auto world = static_cast<int64_t>(shards_.size());
  const int64_t holders = spec.split == model_spec::Split::kReplicated ? 1 : world;
  for (int64_t shard = 0; shard < holders; ++shard) {
    read_block_rows(shards_[static_cast<size_t>(shard)], spec, model_spec::block_of(spec, shard, world),
                    {rows, col, cols}, out);
  }
}

Status ShardRows::check_unchanged() const {
  for (const Shard& shard : shards_) {
    if (shard.file->has_changed()) {
      return refuse(ErrorCode::kDataCorrupt,
                    shard.file->name() + ": changed while it was being read; nothing was written");
    }
  }
  return ok_status();
}

}  // namespace optserve::converter
