// Paged keys and values of every layer on this rank, allocated once.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "model_spec/opt_config.h"

namespace optserve::engine {

class KvCache {
 public:
  // `dtype` of the cells: the backend's compute type, or I8. Throws Error when the device has no room. All cells start
  // as zeros, so a kernel may read past a context.
  KvCache(backend::Backend& backend, const model_spec::OptConfig& config, DType dtype, int64_t num_blocks,
          int64_t world);

  backend::KvLayer layer(int64_t index) const { return layers_[static_cast<size_t>(index)]; }
  int64_t num_blocks() const { return num_blocks_; }

 private:
  int64_t num_blocks_;
  std::vector<Buffer> buffers_;
  std::vector<backend::KvLayer> layers_;
};

}  // namespace optserve::engine
