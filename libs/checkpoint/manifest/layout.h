// What a shard holds for each tensor of the table: one stored tensor, or the values and scales of a quantised matrix.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/safetensors/safetensors.h"
#include "model_spec/opt_tensors.h"
#include "quant/quant_format.h"

namespace optserve::checkpoint {

// What determines the names, types and shapes in every shard.
struct ShardPlan {
  model_spec::OptConfig config;
  DType dtype = DType::kF16;  // of what is not quantised: F32, F16 or BF16
  int shards = 1;
  std::optional<quant::Quantisation> quantisation{};  // of the large matrices of the layers
};

// How the tensor's values are stored: in a plain format unless the plan quantises it.
quant::QuantFormat format_of(const model_spec::TensorSpec& spec, const ShardPlan& plan);

// The shard counts that the model allows, once its tables are padded for them, and that do not split groups of int4.
std::vector<int> legal_shards(const model_spec::OptConfig& config,
                              const std::optional<quant::Quantisation>& quantisation);
// Refuses any other shard count, naming the legal ones, and tables that are not padded for the count.
Status check_shards(const ShardPlan& plan);

// "layers.0.ffn.up.weight_scale"
std::string scale_name(const model_spec::TensorSpec& spec);

// The sizes of the block that one of `world` ranks has of a tensor in `format`.
struct StoredBlock {
  int64_t rows = 0;
  int64_t row_elements = 0;  // of the format's storage type
  int64_t row_scales = 0;

  uint64_t value_bytes(quant::QuantFormat format) const {
    return static_cast<uint64_t>(rows * row_elements) * dtype_bytes(info(format).storage);
  }
  int64_t scales() const { return rows * row_scales; }
};
StoredBlock stored_block(const model_spec::TensorSpec& spec, quant::QuantFormat format, int64_t world);

// The tensors of every shard in the order of their bytes, without offsets; a matrix's scales follow its values.
std::vector<StoredTensor> shard_tensors(const ShardPlan& plan);
std::string shard_header(const ShardPlan& plan, int shard);

}  // namespace optserve::checkpoint
