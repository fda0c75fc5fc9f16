// Any rectangle of a converted checkpoint's tensors, gathered from its shards in bounded memory.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "checkpoint/reader.h"

namespace optserve::converter {

class ShardRows {
 public:
  // Opens the shards of a checkpoint that CheckpointReader has accepted. Refuses quantised ones.
  static Result<ShardRows> open(const checkpoint::CheckpointReader& checkpoint);

  const model_spec::OptConfig& config() const { return config_; }
  DType dtype() const { return dtype_; }

  // Rows `rows` and columns [col, col + cols) of a whole tensor, row-major. Throws Error when a file cannot be read.
  void read(const model_spec::TensorSpec& spec, model_spec::RowRange rows, int64_t col, int64_t cols,
            std::span<std::byte> out) const;
  // Refuses if a shard changed since it was opened.
  Status check_unchanged() const;

 private:
  struct Shard {
    std::unique_ptr<checkpoint::InputFile> file;
    checkpoint::SafetensorsHeader header;
  };
  struct Rectangle {
    model_spec::RowRange rows;
    int64_t col = 0;
    int64_t cols = 0;
  };
  void read_block_rows(const Shard& shard, const model_spec::TensorSpec& spec, const model_spec::Block& block,
                       const Rectangle& wanted, std::span<std::byte> out) const;

  model_spec::OptConfig config_;
  DType dtype_ = DType::kF16;
  std::vector<Shard> shards_;
};

}  // namespace optserve::converter
