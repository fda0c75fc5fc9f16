// The rows of a model whose tables are padded: zeros after the source's own.
#pragma once

#include "converter/weight_rows.h"

namespace optserve::converter {

class PaddedRows final : public WeightRows {
 public:
  // `padded` is the source's config, with more rows of the token table. `source` outlives the object.
  PaddedRows(const WeightRows& source, const model_spec::OptConfig& padded);

  const model_spec::OptConfig& config() const override { return config_; }
  DType dtype(const model_spec::TensorSpec& spec) const override { return source_.dtype(spec); }
  void read_rows(const model_spec::TensorSpec& spec, int64_t row, int64_t count,
                 std::span<std::byte> out) const override;

 private:
  const WeightRows& source_;
  model_spec::OptConfig config_;
};

}  // namespace optserve::converter
