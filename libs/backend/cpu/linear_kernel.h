// Inner loop of linear(): tiles of rows times panels of a packed weight. Every element of the result is one chain of
// multiply-adds over the inputs in their order, whatever the tile, so a row has the same bits alone and in any batch.
// Quantised values are multiplied as they are; the sum of a group of inputs is scaled before it is added.
// For the kernel sets only: each must have its own copy of this code, hence the anonymous namespace.
#pragma once

#include <cmath>

#include "backend/cpu/kernels.h"
#include "base/simd.h"

namespace optserve::backend {
namespace {

constexpr float kSqrtHalf = 0.70710678f;
constexpr int kTileRows = 6;  // 12 sums, 2 weights and 1 input: fits the 16 registers of AVX2

// How eight stored weights become fp32. The conversions are exact. kInputs is the number of inputs in one element.
struct LoadF32 {
  using Element = float;
  static constexpr int kInputs = 1;
  static OPTSERVE_INLINE simd::Float8 load(const float* source) { return simd::load(source); }
};
struct LoadBF16 {
  using Element = uint16_t;
  static constexpr int kInputs = 1;
  static OPTSERVE_INLINE simd::Float8 load(const uint16_t* source) {
    return std::bit_cast<simd::Float8>(simd::load_wide(source) << 16);
  }
};
struct LoadF16 {  // finite values only
  using Element = uint16_t;
  static constexpr int kInputs = 1;
  static OPTSERVE_INLINE simd::Float8 load(const uint16_t* source) { return simd::load_half(source); }
};
struct LoadInt8 {
  using Element = int8_t;
  static constexpr int kInputs = 1;
  static OPTSERVE_INLINE simd::Float8 load(const int8_t* source) { return simd::to_float(simd::load_wide(source)); }
};
// e4m3 without its NaN. Its bits, put in the place of the corresponding bits of fp32, are the number times 2^-120, also
// for subnormal numbers.
struct LoadFp8 {
  using Element = int8_t;
  static constexpr int kInputs = 1;
  static OPTSERVE_INLINE simd::Float8 load(const int8_t* source) {
    const simd::Int8x code = simd::load_wide(source);  // the sign is in the upper bits too
    return std::bit_cast<simd::Float8>(((code & 0x7f) << 20) | (code & simd::kSignBit)) * 0x1p120f;
  }
};
struct LoadInt4 {
  using Element = int8_t;
  static constexpr int kInputs = 2;
  static OPTSERVE_INLINE simd::Float8 load(const int8_t* source) {  // the first of the two inputs
    return simd::to_float((simd::load_wide(source) << 28) >> 28);
  }
  static OPTSERVE_INLINE simd::Float8 load_second(const int8_t* source) {
    return simd::to_float(simd::load_wide(source) >> 4);
  }
};

// acc[kRows][2 * kPanels] += inputs [begin, end) of kRows rows of x times kPanels panels.
template <int kRows, int kPanels, class Load>
OPTSERVE_INLINE void multiply_span(const LinearProduct& p, const float* x, const typename Load::Element* panels,
                                   int64_t begin, int64_t end, simd::Float8 (&acc)[kRows][2 * kPanels]) {
  constexpr int kVectors = 2 * kPanels;
  const int64_t panel_elements = p.in / Load::kInputs;
  for (int64_t k = begin; k < end; k += Load::kInputs) {
    const typename Load::Element* at[kVectors];
    simd::Float8 w[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      at[v] = panels + (v / 2 * panel_elements + k / Load::kInputs) * kPanelWidth + v % 2 * simd::kLanes;
      w[v] = Load::load(at[v]);
    }
    for (int r = 0; r < kRows; ++r) {
      const simd::Float8 value = simd::broadcast(x[r * p.x_stride + k]);
      for (int v = 0; v < kVectors; ++v) acc[r][v] += value * w[v];
    }
    if constexpr (Load::kInputs == 2) {
      for (int v = 0; v < kVectors; ++v) w[v] = Load::load_second(at[v]);
      for (int r = 0; r < kRows; ++r) {
        const simd::Float8 value = simd::broadcast(x[r * p.x_stride + k + 1]);
        for (int v = 0; v < kVectors; ++v) acc[r][v] += value * w[v];
      }
    }
  }
}

// sums[kRows][kPanels * kPanelWidth] = kRows rows of x times kPanels panels.
template <int kRows, int kPanels, class Load>
OPTSERVE_INLINE void multiply_tile(const LinearProduct& p, const float* x, int64_t panel, float* sums) {
  constexpr int kVectors = 2 * kPanels;
  const auto* panels =
      static_cast<const typename Load::Element*>(p.weight) + panel * (p.in / Load::kInputs) * kPanelWidth;
  simd::Float8 total[kRows][kVectors] = {};
  if (p.scales == nullptr) {
    multiply_span<kRows, kPanels, Load>(p, x, panels, 0, p.in, total);
  } else {
    const int64_t groups = p.in / p.group;
    for (int64_t group = 0; group < groups; ++group) {
      simd::Float8 acc[kRows][kVectors] = {};
      multiply_span<kRows, kPanels, Load>(p, x, panels, group * p.group, (group + 1) * p.group, acc);
      for (int v = 0; v < kVectors; ++v) {
        const int64_t scales_of_panel = (panel + v / 2) * groups + group;
        const simd::Float8 scale = simd::load(p.scales + scales_of_panel * kPanelWidth + v % 2 * simd::kLanes);
        for (int r = 0; r < kRows; ++r) total[r][v] += acc[r][v] * scale;
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) simd::store(sums + (r * kVectors + v) * simd::kLanes, total[r][v]);
  }
}

// Adds the bias, applies the activation and writes the columns that exist.
OPTSERVE_INLINE void finish_tile(const LinearProduct& p, const float* sums, int width, int64_t row, int rows,
                                 int64_t column) {
  const int64_t count = width < p.out - column ? width : p.out - column;
  for (int r = 0; r < rows; ++r) {
    float* destination = p.y + (row + r) * p.y_stride + column;
    for (int64_t i = 0; i < count; ++i) {
      const float value = sums[r * width + i] + (p.bias == nullptr ? 0.0f : p.bias[column + i]);
      destination[i] = p.activation == Activation::kRelu && value < 0.0f ? 0.0f : value;
    }
    if (p.activation != Activation::kGelu) continue;
    for (int64_t i = 0; i < count; ++i) {  // erff is not inlined: both kernel sets call the same one
      destination[i] *= 0.5f * (1.0f + ::erff(destination[i] * kSqrtHalf));
    }
  }
}

template <int kRows, class Load>
OPTSERVE_INLINE void multiply_rows(const LinearProduct& p, int64_t row, int64_t first, int64_t last) {
  // Few rows take several panels at a time: enough independent sums to hide the latency of a multiply-add.
  constexpr int kPanels = kRows == 1 ? 4 : kRows <= 3 ? 2 : 1;
  alignas(32) float sums[kRows * kPanels * kPanelWidth];
  const float* x = p.x + row * p.x_stride;
  int64_t panel = first;
  for (; panel + kPanels <= last; panel += kPanels) {
    multiply_tile<kRows, kPanels, Load>(p, x, panel, sums);
    finish_tile(p, sums, kPanels * kPanelWidth, row, kRows, panel * kPanelWidth);
  }
  for (; kPanels > 1 && panel < last; ++panel) {
    multiply_tile<kRows, 1, Load>(p, x, panel, sums);
    finish_tile(p, sums, kPanelWidth, row, kRows, panel * kPanelWidth);
  }
}

// All rows, in tiles of about equal height, against panels [first, last).
template <class Load>
void linear_kernel(const LinearProduct& p, int64_t first, int64_t last) {
  const int64_t tiles = (p.rows + kTileRows - 1) / kTileRows;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t row = tile * p.rows / tiles;
    switch ((tile + 1) * p.rows / tiles - row) {
      case 1:
        multiply_rows<1, Load>(p, row, first, last);
        break;
      case 2:
        multiply_rows<2, Load>(p, row, first, last);
        break;
      case 3:
        multiply_rows<3, Load>(p, row, first, last);
        break;
      case 4:
        multiply_rows<4, Load>(p, row, first, last);
        break;
      case 5:
        multiply_rows<5, Load>(p, row, first, last);
        break;
      default:
        multiply_rows<kTileRows, Load>(p, row, first, last);
        break;
    }
  }
}

}  // namespace
}  // namespace optserve::backend
