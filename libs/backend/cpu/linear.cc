#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernel_accesses.h"
#include "quant/e4m3.h"
#include "quant/quantise.h"
#include "quant/random_codes.h"

namespace optserve::backend {
namespace {

constexpr int64_t kGroupPanels = 4;         // panels of one item of work
constexpr int64_t kWorthSharing = 100'000;  // fewer multiply-adds take less time than waking another thread

int64_t panel_count(int64_t out) { return (out + kPanelWidth - 1) / kPanelWidth; }

// Reads one element from host bytes, which may have any alignment.
template <class Element>
Element read(const void* source, int64_t index) {
  Element value;
  std::memcpy(&value, static_cast<const std::byte*>(source) + index * static_cast<int64_t>(sizeof value), sizeof value);
  return value;
}

// Arranges [out, row_elements] as the panels of kernels.h.
template <class Element>
void pack(ThreadPool& pool, const void* source, int64_t out, int64_t row_elements, void* packed) {
  pool.run(panel_count(out), [=](int64_t panel, int) {
    Element* destination = static_cast<Element*>(packed) + panel * kPanelWidth * row_elements;
    for (int64_t k = 0; k < row_elements; ++k) {
      for (int64_t column = panel * kPanelWidth; column < (panel + 1) * kPanelWidth; ++column) {
        *destination++ = column < out ? read<Element>(source, column * row_elements + k) : Element{0};
      }
    }
  });
}

// Whether the kernel of the format can read all values: those for halves and fp8 read finite ones only.
bool all_readable(const quant::StoredMatrix& stored) {
  const int64_t count = stored.out * stored.in;
  for (int64_t i = 0; stored.format == quant::QuantFormat::kF16 && i < count; ++i) {
    if ((read<uint16_t>(stored.values, i) & 0x7c00) == 0x7c00) return false;
  }
  for (int64_t i = 0; stored.format == quant::QuantFormat::kFp8 && i < count; ++i) {
    if ((read<uint8_t>(stored.values, i) & 0x7f) == 0x7f) return false;
  }
  return true;
}

std::vector<float> widened(const quant::StoredMatrix& stored) {
  std::vector<float> values(static_cast<size_t>(stored.out * stored.in));
  if (is_plain(stored.format)) {
    convert_to_f32(stored.values, info(stored.format).storage, values.data(), values.size());
    return values;
  }
  const auto elements = static_cast<size_t>(stored.out * elements_per_row(stored.format, stored.in));
  const auto scales = static_cast<size_t>(stored.out * scales_per_row(stored.format, stored.in));
  quant::dequantise_rows(stored.format, {static_cast<const std::byte*>(stored.values), elements},
                         {stored.scales, scales}, stored.in, values);
  return values;
}

// A row of x as BackendOptions::fp8_activations has it; one with a NaN or an infinity stays as it is.
void round_to_fp8(const float* x, int64_t count, float* out) {
  float most = 0;
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) most = std::max(most, std::abs(x[i])), finite = finite && std::isfinite(x[i]);
  const float scale = finite && most > 0 ? most / quant::kE4m3Max : 1.0f;
  for (int64_t i = 0; i < count; ++i) {
    out[i] = finite ? quant::e4m3_to_float(quant::float_to_e4m3(x[i] / scale)) * scale : x[i];
  }
}

CpuKernels::Linear kernel_for(const CpuKernels& kernels, quant::QuantFormat format) {
  switch (format) {
    case quant::QuantFormat::kF32:
      return kernels.linear_f32;
    case quant::QuantFormat::kF16:
      return kernels.linear_f16;
    case quant::QuantFormat::kBF16:
      return kernels.linear_bf16;
    case quant::QuantFormat::kInt8:
      return kernels.linear_int8;
    case quant::QuantFormat::kFp8:
      return kernels.linear_fp8;
    case quant::QuantFormat::kInt4:
      return kernels.linear_int4;
  }
  check_failed("linear: no kernel for this weight format", std::source_location::current());
}

size_t packed_values(quant::QuantFormat format, int64_t out, int64_t in) {
  return static_cast<size_t>(panel_count(out) * kPanelWidth * elements_per_row(format, in)) *
         dtype_bytes(info(format).storage);
}

size_t packed_scales(quant::QuantFormat format, int64_t out, int64_t in) {
  return static_cast<size_t>(panel_count(out) * kPanelWidth * scales_per_row(format, in)) * sizeof(float);
}

}  // namespace

size_t CpuBackend::weight_bytes(quant::QuantFormat format, int64_t out, int64_t in) const {
  return packed_values(format, out, in) + packed_scales(format, out, in);
}

// Narrow weights are not widened in memory: there is less to read in every step, and the numbers are the same once
// widened.
quant::Weight CpuBackend::load_weight(const quant::StoredMatrix& stored) {
  check(stored.out >= 0 && stored.in >= 0 && stored.in % input_multiple(stored.format) == 0, "load_weight: a shape");
  if (!all_readable(stored)) {
    const std::vector<float> wide = widened(stored);
    return load_weight({quant::QuantFormat::kF32, stored.out, stored.in, wide.data()});
  }
  quant::Weight weight{stored.format, stored.out, stored.in, {}};
  weight.values = allocate(packed_values(stored.format, stored.out, stored.in));
  const int64_t row_elements = quant::elements_per_row(stored.format, stored.in);
  switch (dtype_bytes(info(stored.format).storage)) {
    case 4:
      pack<uint32_t>(pool_, stored.values, stored.out, row_elements, weight.values.data());
      break;
    case 2:
      pack<uint16_t>(pool_, stored.values, stored.out, row_elements, weight.values.data());
      break;
    default:
      pack<uint8_t>(pool_, stored.values, stored.out, row_elements, weight.values.data());
      break;
  }
  if (is_plain(stored.format)) return weight;
  weight.scales = allocate(packed_scales(stored.format, stored.out, stored.in));
  pack<float>(pool_, stored.scales, stored.out, quant::scales_per_row(stored.format, stored.in), weight.scales.data());
  return weight;
}

quant::Weight CpuBackend::random_weight(const RandomBlock& block, quant::QuantFormat format) {
  const auto row_bytes =
      static_cast<size_t>(quant::elements_per_row(format, block.cols)) * dtype_bytes(info(format).storage);
  std::vector<std::byte> values(static_cast<size_t>(block.rows()) * row_bytes);
  if (is_plain(format)) {
    fill_random(block, values);
    return load_weight({format, block.rows(), block.cols, values.data()});
  }
  quant::fill_random_codes(block, format, values);
  const std::vector<float> scales(static_cast<size_t>(block.rows() * quant::scales_per_row(format, block.cols)),
                                  quant::random_scale(block, format));
  return load_weight({format, block.rows(), block.cols, values.data(), scales.data()});
}

void CpuBackend::do_linear(const Tensor& x, const quant::Weight& weight, const Tensor& bias, Activation activation,
                           Tensor out) {
  const int64_t group = info(weight.format).group;
  LinearProduct product{
      .x = x.data<float>(),
      .x_stride = x.row_stride(),
      .rows = x.dim(0),
      .in = weight.in,
      .out = weight.out,
      .weight = weight.values.data(),
      .scales = static_cast<const float*>(weight.scales.data()),
      .group = group > 0 ? group : std::max<int64_t>(weight.in, 1),
      .bias = bias.empty() ? nullptr : bias.data<float>(),
      .activation = activation,
      .y = out.data<float>(),
      .y_stride = out.row_stride(),
  };
  std::vector<float> rounded;
  if (fp8_activations_ && weight.format == quant::QuantFormat::kFp8) {
    rounded.resize(static_cast<size_t>(product.rows * product.in));
    for (int64_t row = 0; row < product.rows; ++row) {
      round_to_fp8(x.row<float>(row), product.in, &rounded[static_cast<size_t>(row * product.in)]);
    }
    product.x = rounded.data(), product.x_stride = product.in;
  }
  const CpuKernels::Linear kernel = kernel_for(kernels_, weight.format);
  const auto multiply = [&](int64_t first_panel, int64_t last_panel) {
    will_multiply(product, first_panel, last_panel);
    kernel(product, first_panel, last_panel);
  };
  const int64_t panels = panel_count(weight.out);
  if (product.rows * product.in * product.out < kWorthSharing) return multiply(0, panels);
  pool_.run((panels + kGroupPanels - 1) / kGroupPanels, [&](int64_t group_index, int) {
    multiply(group_index * kGroupPanels, std::min(panels, (group_index + 1) * kGroupPanels));
  });
}

}  // namespace optserve::backend
