#include "engine/kv_cache.h"

#include "base/limits.h"

namespace optserve::engine {

KvCache::KvCache(Backend& backend, const model_spec::OptConfig& config, int64_t num_blocks, int64_t world)
    : num_blocks_(num_blocks) {
  const int64_t heads = config.num_heads / world;
  const DType dtype = backend.compute_dtype();
  const auto cells = [&]() -> Tensor {
    const int64_t numel = num_blocks * limits::kKvBlockTokens * heads * config.head_dim();
    buffers_.push_back(backend.allocate(static_cast<size_t>(numel) * dtype_bytes(dtype)));
    const Tensor view = buffers_.back().view(dtype, {num_blocks, heads, limits::kKvBlockTokens, config.head_dim()});
    backend.fill_zero(view);
    return view;
  };
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const Tensor keys = cells();
    layers_.push_back({keys, cells()});
  }
}

}  // namespace optserve::engine
