// The kernels' name of a format.
#pragma once

#include "kernels/quantised.h"
#include "quant/quant_format.h"

namespace optserve::cuda {

inline kernels::WeightFormat weight_format(QuantFormat format) {
  switch (format) {
    case QuantFormat::kInt8:
      return kernels::WeightFormat::kInt8;
    case QuantFormat::kFp8:
      return kernels::WeightFormat::kFp8;
    case QuantFormat::kInt4:
      return kernels::WeightFormat::kInt4;
    default:
      return kernels::WeightFormat::kPlain;
  }
}

}  // namespace optserve::cuda
