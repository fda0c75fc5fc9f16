// The kernels' name of a format.
#pragma once

#include "kernels/quantised.h"
#include "quant/quant_format.h"

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

}  // namespace optserve::backend::cuda
