// What the kernels call types and formats.
#pragma once

#include <optional>

#include "kernels/elementwise.h"
#include "kernels/quantised.h"
#include "quant/quant_format.h"
#include "tensor/dtype.h"

namespace optserve::backend::cuda {

inline kernels::WeightFormat weight_format(quant::QuantFormat format) {
  switch (format) {
    case quant::QuantFormat::kInt8:
      return kernels::WeightFormat::kInt8;
    case quant::QuantFormat::kFp8:
      return kernels::WeightFormat::kFp8;
    case quant::QuantFormat::kInt4:
      return kernels::WeightFormat::kInt4;
    default:
      return kernels::WeightFormat::kPlain;
  }
}

// nullopt: the kernels do not compute in this type.
inline std::optional<kernels::Element> element_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return kernels::Element::kF32;
    case DType::kF16:
      return kernels::Element::kF16;
    case DType::kBF16:
      return kernels::Element::kBF16;
    default:
      return std::nullopt;
  }
}

}  // namespace optserve::backend::cuda
