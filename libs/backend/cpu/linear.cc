#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_backend.h"

namespace optserve {
namespace {

constexpr int64_t kGroupPanels = 4;         // panels of one item of work
constexpr int64_t kWorthSharing = 100'000;  // fewer multiply-adds are done before another thread has woken

int64_t panel_count(int64_t out) { return (out + kPanelWidth - 1) / kPanelWidth; }

// One element of host bytes, which need no alignment.
template <class Element>
Element read(const void* source, int64_t index) {
  Element value;
  std::memcpy(&value, static_cast<const std::byte*>(source) + index * static_cast<int64_t>(sizeof value), sizeof value);
  return value;
}

// [out, in] to the panels of kernels.h.
template <class Element>
void pack(ThreadPool& pool, const void* source, int64_t out, int64_t in, void* packed) {
  pool.run(panel_count(out), [=](int64_t panel, int) {
    Element* destination = static_cast<Element*>(packed) + panel * kPanelWidth * in;
    for (int64_t k = 0; k < in; ++k) {
      for (int64_t column = panel * kPanelWidth; column < (panel + 1) * kPanelWidth; ++column) {
        *destination++ = column < out ? read<Element>(source, column * in + k) : Element{0};
      }
    }
  });
}

bool all_finite_halves(const void* source, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if ((read<uint16_t>(source, i) & 0x7c00) == 0x7c00) return false;
  }
  return true;
}

CpuKernels::Linear kernel_for(const CpuKernels& kernels, QuantFormat format) {
  switch (format) {
    case QuantFormat::kF32:
      return kernels.linear_f32;
    case QuantFormat::kF16:
      return kernels.linear_f16;
    case QuantFormat::kBF16:
      return kernels.linear_bf16;
    default:  // widened when it is loaded
      break;
  }
  check_failed("linear: no kernel for this weight format", std::source_location::current());
}

}  // namespace

Weight CpuBackend::load_weight(const void* source, DType source_dtype, int64_t out, int64_t in) {
  const auto format = plain_format(source_dtype);
  check(format.has_value() && out >= 0 && in >= 0, "load_weight: not a matrix of F32, F16 or BF16");
  Buffer widened;
  Weight weight{*format, out, in, {}};
  if (*format == QuantFormat::kF16 && !all_finite_halves(source, out * in)) {
    widened = load_table(source, source_dtype, out * in);  // the kernel for halves reads finite ones only
    source = widened.data();
    weight.format = QuantFormat::kF32;
  }
  // 16-bit weights stay as they are: half the memory to read in every step, and the same numbers once widened.
  const size_t element = dtype_bytes(info(weight.format).storage);
  weight.values = allocate(static_cast<size_t>(panel_count(out) * kPanelWidth * in) * element);
  if (element == sizeof(float)) {
    pack<float>(pool_, source, out, in, weight.values.data());
  } else {
    pack<uint16_t>(pool_, source, out, in, weight.values.data());
  }
  return weight;
}

Weight CpuBackend::random_weight(const RandomBlock& block) {
  std::vector<std::byte> values(static_cast<size_t>(block.elements()) * dtype_bytes(block.dtype));
  fill_random(block, values);
  return load_weight(values.data(), block.dtype, block.rows(), block.cols);
}

void CpuBackend::do_linear(const Tensor& x, const Weight& weight, const Tensor& bias, Activation activation,
                           Tensor out) {
  const LinearProduct product{
      .x = x.data<float>(),
      .x_stride = x.row_stride(),
      .rows = x.dim(0),
      .in = weight.in,
      .out = weight.out,
      .weight = weight.values.data(),
      .bias = bias.empty() ? nullptr : bias.data<float>(),
      .activation = activation,
      .y = out.data<float>(),
      .y_stride = out.row_stride(),
  };
  const CpuKernels::Linear kernel = kernel_for(kernels_, weight.format);
  const int64_t panels = panel_count(weight.out);
  if (product.rows * product.in * product.out < kWorthSharing) return kernel(product, 0, panels);
  pool_.run((panels + kGroupPanels - 1) / kGroupPanels, [&](int64_t group, int) {
    kernel(product, group * kGroupPanels, std::min(panels, (group + 1) * kGroupPanels));
  });
}

}  // namespace optserve
