// The rows of a source as a checkpoint of some plan holds them: rounded to its type, quantised, and widened again.
#pragma once

#include "converter/transform/stored_rows.h"

namespace optserve::converter {

class RoundedRows final : public WeightRows {
 public:
  // Both outlive the object.
  RoundedRows(const WeightRows& rows, const checkpoint::ShardPlan& plan) : rows_(rows), plan_(plan) {}

  const model_spec::OptConfig& config() const override { return rows_.config(); }
  DType dtype(const model_spec::TensorSpec&) const override { return DType::kF32; }
  void read_rows(const model_spec::TensorSpec& spec, int64_t row, int64_t count,
                 std::span<std::byte> out) const override;

 private:
  const WeightRows& rows_;
  const checkpoint::ShardPlan& plan_;
};

}  // namespace optserve::converter
