#include "engine/kv_cache.h"

#include "base/limits.h"

namespace optserve::engine {

KvCache::KvCache(backend::Backend& backend, const model_spec::OptConfig& config, DType dtype, int64_t num_blocks,
                 int64_t world)
    : num_blocks_(num_blocks) {
  check(dtype == backend.compute_dtype() || dtype == DType::kI8, "KvCache: type of the cells");
  const int64_t heads = config.num_heads / world;
  const auto zeros = [&](DType type, std::initializer_list<int64_t> shape) -> Tensor {
    size_t bytes = dtype_bytes(type);
    for (const int64_t size : shape) bytes *= static_cast<size_t>(size);
    buffers_.push_back(backend.allocate(bytes));
    const Tensor view = buffers_.back().view(type, shape);
    backend.fill_zero(view);
    return view;
  };
  for (int64_t i = 0; i < config.num_layers; ++i) {
    backend::KvLayer& layer = layers_.emplace_back();
    layer.keys = zeros(dtype, {num_blocks, heads, limits::kKvBlockTokens, config.head_dim()});
    layer.values = zeros(dtype, {num_blocks, heads, limits::kKvBlockTokens, config.head_dim()});
    if (dtype != DType::kI8) continue;
    layer.key_scales = zeros(DType::kF32, {num_blocks, heads, limits::kKvBlockTokens});
    layer.value_scales = zeros(DType::kF32, {num_blocks, heads, limits::kKvBlockTokens});
  }
}

}  // namespace optserve::engine
