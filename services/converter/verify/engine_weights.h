// Rows of a source as blocks of the engine's, so that the engine computes with weights that were never converted.
#pragma once

#include <vector>

#include "converter/weight_rows.h"
#include "engine/weight_source.h"

namespace optserve::converter {

class EngineWeights final : public engine::WeightSource {
 public:
  // Weights are given in `dtype`, a floating type. `rows` outlives the object. One rank only.
  EngineWeights(const WeightRows& rows, DType dtype);

  const model_spec::OptConfig& config() const override { return rows_.config(); }
  const std::vector<model_spec::TensorSpec>& tensors() const override { return tensors_; }
  DType dtype() const override { return dtype_; }
  quant::QuantFormat format(const model_spec::TensorSpec&) const override { return *quant::plain_format(dtype_); }
  void read_block(const model_spec::TensorSpec& spec, int rank, int world, std::span<std::byte> out) const override;
  void read_scales(const model_spec::TensorSpec& spec, int rank, int world, std::span<float> out) const override;
  std::optional<RandomBlock> random_block(const model_spec::TensorSpec&, int, int) const override {
    return std::nullopt;
  }

 private:
  const WeightRows& rows_;
  DType dtype_;
  std::vector<model_spec::TensorSpec> tensors_;
};

}  // namespace optserve::converter
