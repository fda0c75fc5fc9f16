// The element types of activations, weights and KV cells, and what every launch function returns.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace optserve::kernels {

enum class Element : uint8_t { kF32, kF16, kBF16 };

}  // namespace optserve::kernels
