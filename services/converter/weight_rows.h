// Rows of the tensors of model_spec's table: a foreign checkpoint's, or what is made of them before they are stored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "model_spec/opt_tensors.h"
#include "tensor/dtype.h"

namespace optserve::converter {

class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual const model_spec::OptConfig& config() const = 0;
  virtual tensor::DType dtype(const model_spec::TensorSpec& spec) const = 0;
  // Rows [row, row + count) of the tensor, all columns, in dtype(spec). Throws Error.
  virtual void read_rows(const model_spec::TensorSpec& spec, int64_t row, int64_t count,
                         std::span<std::byte> out) const = 0;
};

}  // namespace optserve::converter
