// Which way of multiplying was chosen for a shape, and the file that keeps that from one start to the next.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "kernels/wgmma_linear.h"

namespace optserve::backend::cuda {

// Shapes that share a choice.
struct LinearKey {
  int32_t flags = 0;  // format, element, out_f32, relu, bias, bytes
  int32_t alignment = 0;
  int64_t rows = 0, in = 0, out = 0;  // rows: rounded up
  auto operator<=>(const LinearKey&) const = default;
};

struct LinearChoice {
  enum class Way { kCublas, kSkinny, kQuantised, kWgmma, kDequantised, kBytes };
  Way way = Way::kCublas;
  kernels::WgmmaWay wgmma{};         // of kWgmma
  cublasLtMatmulAlgo_t algorithm{};  // of kCublas and kBytes
};

// The file has one line for each choice. A line that cannot be read, or a file that cannot be written, only means that
// a choice is not kept.
class LinearChoices {
 public:
  // With an empty `path` nothing is kept. All ranks of a host may share the file.
  explicit LinearChoices(std::string path);

  const LinearChoice* find(const LinearKey& key) const;
  const LinearChoice& keep(const LinearKey& key, const LinearChoice& choice);

 private:
  std::string path_;
  std::map<LinearKey, LinearChoice> choices_;
};

}  // namespace optserve::backend::cuda
