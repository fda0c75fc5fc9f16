#include "checkpoint/manifest/layout.h"

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"

namespace optserve::checkpoint {
namespace {

using model_spec::TensorSpec;

std::string list_of(const std::vector<int>& numbers) {
  std::string text;
  for (const int number : numbers) text += (text.empty() ? "" : ", ") + std::to_string(number);
  return text.empty() ? "none" : text;
}

}  // namespace

quant::QuantFormat format_of(const TensorSpec& spec, const ShardPlan& plan) {
  if (plan.quantisation && spec.quantisable) return plan.quantisation->format;
  const auto format = quant::plain_format(plan.dtype);
  check(format.has_value(), "a checkpoint's type is F32, F16 or BF16");
  return *format;
}

std::vector<int> legal_shards(const model_spec::OptConfig& config,
                              const std::optional<quant::Quantisation>& quantisation) {
  const int64_t multiple = quantisation ? input_multiple(quantisation->format) : 1;
  const std::vector<TensorSpec> tensors = model_spec::opt_tensors(config);
  const auto is_legal = [&](int shards) {
    return model_spec::is_legal_world(model_spec::with_padded_vocab(config, shards), shards) &&
           std::ranges::all_of(tensors, [&](const TensorSpec& spec) {
             return !spec.quantisable || model_spec::block_of(spec, 0, shards).cols % multiple == 0;
           });
  };
  std::vector<int> legal;
  for (int shards = 1; shards <= limits::kWorldSizeMax; ++shards) {
    if (is_legal(shards)) legal.push_back(shards);
  }
  return legal;
}

Status check_shards(const ShardPlan& plan) {
  const std::vector<int> legal = legal_shards(plan.config, plan.quantisation);
  if (std::ranges::find(legal, plan.shards) != legal.end()) {
    if (model_spec::is_legal_world(plan.config, plan.shards)) return ok_status();
    return refuse(ErrorCode::kBadRequest, "vocab is " + std::to_string(plan.config.vocab) + ", which " +
                                              std::to_string(plan.shards) + " shards do not divide");
  }
  std::string text = "shards is " + std::to_string(plan.shards) + ", the model allows " + list_of(legal);
  if (plan.quantisation && input_multiple(plan.quantisation->format) > 1) {
    text += " in " + std::string(quant::quantisation_name(*plan.quantisation)) +
            ", where a shard's inputs are a multiple of " + std::to_string(input_multiple(plan.quantisation->format));
  }
  return refuse(ErrorCode::kBadRequest, text);
}

std::string scale_name(const TensorSpec& spec) { return spec.name + "_scale"; }

StoredBlock stored_block(const TensorSpec& spec, quant::QuantFormat format, int64_t world) {
  const model_spec::Block block = model_spec::block_of(spec, 0, world);
  return {block.row_count(), quant::elements_per_row(format, block.cols), quant::scales_per_row(format, block.cols)};
}

std::vector<StoredTensor> shard_tensors(const ShardPlan& plan) {
  std::vector<StoredTensor> tensors;
  for (const TensorSpec& spec : model_spec::opt_tensors(plan.config)) {
    const quant::QuantFormat format = format_of(spec, plan);
    std::vector<int64_t> shape = model_spec::block_shape(spec, plan.shards);
    if (is_plain(format)) {
      tensors.push_back({spec.name, plan.dtype, shape, 0, 0});
      continue;
    }
    const StoredBlock block = stored_block(spec, format, plan.shards);
    tensors.push_back({spec.name, info(format).storage, {block.rows, block.row_elements}, 0, 0});
    shape = {block.rows, block.row_scales};
    if (info(format).group == quant::kWholeRow) shape.pop_back();
    tensors.push_back({scale_name(spec), DType::kF32, shape, 0, 0});
  }
  return tensors;
}

std::string shard_header(const ShardPlan& plan, int shard) {
  std::vector<StoredTensor> tensors = shard_tensors(plan);
  return safetensors_header(tensors, {{"format", "optserve-checkpoint"},
                                      {"shard", std::to_string(shard) + " of " + std::to_string(plan.shards)}});
}

}  // namespace optserve::checkpoint
