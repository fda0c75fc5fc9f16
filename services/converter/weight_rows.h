// Rows of the weights of a model, in the order and under the names of model_spec's tensor table, wherever they come
// from. All that the converter writes, smooths, verifies and computes with passes through this interface.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "model_spec/opt_tensors.h"
#include "tensor/dtype.h"

namespace optserve::converter {

class WeightRows {
 public:
  virtual ~WeightRows() = default;
  virtual const model_spec::OptConfig& config() const = 0;
  // The type in which the rows of a tensor are read.
  virtual DType dtype(const model_spec::TensorSpec& spec) const = 0;
  // Rows [row, row + count) of the tensor, all columns, in dtype(spec). Throws Error.
  virtual void read_rows(const model_spec::TensorSpec& spec, int64_t row, int64_t count,
                         std::span<std::byte> out) const = 0;
};

// How many rows of a tensor to read at a time, at least one: few enough to stay in the processor's cache while they are
// worked on.
int64_t rows_per_piece(const model_spec::TensorSpec& spec);

// Reads rows as floats.
class WideRows {
 public:
  explicit WideRows(const WeightRows& rows) : rows_(rows) {}
  // Rows [row, row + count), all columns, which are valid until the next call. Throws Error.
  std::span<float> read(const model_spec::TensorSpec& spec, int64_t row, int64_t count);

 private:
  const WeightRows& rows_;
  std::vector<std::byte> raw_;
  std::vector<float> wide_;
};

}  // namespace optserve::converter
