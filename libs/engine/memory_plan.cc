#include "engine/memory_plan.h"

#include <algorithm>
#include <cstdio>

#include "base/limits.h"
#include "model_spec/opt_tensors.h"

namespace optserve::engine {

namespace {

std::string gib(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f GiB", bytes / (1 << 30));
  return text;
}

std::string mib(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f MiB", bytes / (1 << 20));
  return text;
}

}  // namespace

uint64_t weight_bytes(const WeightSource& source, int world, const backend::Backend& backend) {
  uint64_t bytes = 0;
  for (const model_spec::TensorSpec& spec : source.tensors()) {
    const model_spec::Block block = block_of(spec, 0, world);
    const quant::QuantFormat format = source.format(spec);
    bytes += is_plain(format) ? static_cast<uint64_t>(block.elements()) * dtype_bytes(backend.compute_dtype())
                              : backend.weight_bytes(format, block.row_count(), block.cols);
    if (source.config().activation == model_spec::Activation::kRelu && spec.name.ends_with("ffn.down.weight")) {
      bytes += backend.sparse_input_bytes(format, block.row_count(), block.cols);
    }
  }
  return bytes;
}

uint64_t kv_block_bytes(const model_spec::OptConfig& config, int64_t world, DType kv_dtype) {
  int64_t token = model_spec::kv_bytes_per_token(config, static_cast<int64_t>(dtype_bytes(kv_dtype)));
  if (kv_dtype == DType::kI8) token += 2 * config.num_layers * config.num_heads * static_cast<int64_t>(sizeof(float));
  return static_cast<uint64_t>(token / world * limits::kKvBlockTokens);
}

std::string describe(const MemoryNeeds& needs, const backend::DeviceMemory& memory, double fraction, int64_t blocks) {
  const double cache = static_cast<double>(needs.kv_block) * static_cast<double>(blocks);
  return "weights " + gib(static_cast<double>(needs.weights)) + ", workspace " +
         gib(static_cast<double>(needs.workspace)) + ", KV cache " + gib(cache) + " (" + std::to_string(blocks) +
         " blocks of " + mib(static_cast<double>(needs.kv_block)) + "), free " +
         gib(static_cast<double>(memory.free_bytes)) + " of " + gib(static_cast<double>(memory.total_bytes)) +
         ", to be used at most " + std::to_string(static_cast<int>(fraction * 100 + 0.5)) + "%";
}

Result<int32_t> plan_kv_blocks(const MemoryNeeds& needs, const backend::DeviceMemory& memory, double fraction,
                               int64_t least, int64_t most) {
  const double total = static_cast<double>(memory.total_bytes), free = static_cast<double>(memory.free_bytes);
  const double usable = fraction * total - (total - free);  // other processes may hold memory of the device too
  const double left = usable - static_cast<double>(needs.weights + needs.workspace);
  const auto fitting = static_cast<int64_t>(std::max(0.0, left / static_cast<double>(needs.kv_block)));
  if (fitting < least) {
    return refuse(ErrorCode::kUnavailable,
                  "the model does not fit the device: " + describe(needs, memory, fraction, least) + ": short of " +
                      gib(static_cast<double>(needs.kv_block) * static_cast<double>(least) - left));
  }
  return static_cast<int32_t>(std::min({fitting, most, int64_t{INT32_MAX} / limits::kKvBlockTokens}));
}

}  // namespace optserve::engine
