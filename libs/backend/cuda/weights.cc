#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernel_names.h"
#include "kernels/elementwise.h"
#include "kernels/quantised.h"
#include "quant/random_codes.h"

namespace optserve::backend {

using cuda::expect;
using cuda::weight_format;

namespace {

quant::QuantFormat plain(DType dtype) {
  const auto format = quant::plain_format(dtype);
  check(format.has_value(), "a plain weight has a floating type");
  return *format;
}

constexpr size_t kPartAlignment = 256;
size_t aligned(size_t bytes) { return (bytes + kPartAlignment - 1) / kPartAlignment * kPartAlignment; }

// The bytes of row-major values and scales.
size_t value_bytes(quant::QuantFormat format, int64_t out, int64_t in) {
  return static_cast<size_t>(out * elements_per_row(format, in)) * dtype_bytes(info(format).storage);
}
size_t scale_bytes(quant::QuantFormat format, int64_t out, int64_t in) {
  return static_cast<size_t>(out * scales_per_row(format, in)) * sizeof(float);
}

// The bytes of packed values and scales.
size_t packed_value_bytes(quant::QuantFormat format, int64_t out, int64_t in) {
  return static_cast<size_t>(kernels::packed_bytes(weight_format(format), out, in));
}
size_t packed_scale_bytes(quant::QuantFormat format, int64_t out, int64_t in) {
  return static_cast<size_t>(kernels::packed_scales(weight_format(format), out, in)) * sizeof(float);
}

// Memory on the device for a matrix in the form of files, followed by memory for the packed form if that is needed only
// in between.
struct Landing {
  size_t values, scales, spare_at, bytes;

  Landing(quant::QuantFormat format, int64_t out, int64_t in, bool with_spare)
      : values(value_bytes(format, out, in)),
        scales(scale_bytes(format, out, in)),
        spare_at(aligned(aligned(values) + scales)),
        bytes(spare_at) {
    if (with_spare) bytes += aligned(packed_value_bytes(format, out, in)) + packed_scale_bytes(format, out, in);
  }
};

void keep(void*) {}

}  // namespace

// There is no kernel for fp32, and kernels for many rows add in a different order than those for few.
bool CudaBackend::keeps_quantised() const { return compute_dtype_ != DType::kF32 && !one_attention_; }

bool CudaBackend::keeps_row_major(quant::QuantFormat format) const {
  return fp8_activations_ && format == quant::QuantFormat::kFp8 && keeps_quantised() && compute_dtype_ == DType::kF16 &&
         limits_.compute_capability >= 90;
}

size_t CudaBackend::weight_bytes(quant::QuantFormat format, int64_t out, int64_t in) const {
  if (is_plain(format) || !keeps_quantised()) return static_cast<size_t>(out * in) * dtype_bytes(compute_dtype_);
  return packed_value_bytes(format, out, in) + packed_scale_bytes(format, out, in) +
         (keeps_row_major(format) ? value_bytes(format, out, in) : 0);
}

quant::Weight CudaBackend::make_quantised(const quant::StoredMatrix& stored, std::byte* spare) {
  const kernels::WeightFormat format = weight_format(stored.format);
  const kernels::StoredCodes codes{
      .format = format, .out = stored.out, .in = stored.in, .values = stored.values, .scales = stored.scales};
  if (keeps_quantised()) {
    quant::Weight weight{stored.format, stored.out, stored.in,
                         allocate(packed_value_bytes(stored.format, stored.out, stored.in)),
                         allocate(packed_scale_bytes(stored.format, stored.out, stored.in))};
    expect(kernels::pack_quantised(codes, weight.values.data(), static_cast<float*>(weight.scales.data()), stream_),
           "pack_quantised");
    if (keeps_row_major(stored.format)) {
      const size_t bytes = value_bytes(stored.format, stored.out, stored.in);
      weight.row_major = allocate(bytes);
      expect(cudaMemcpyAsync(weight.row_major.data(), stored.values, bytes, cudaMemcpyDeviceToDevice, stream_),
             "load_weight");
    }
    return weight;
  }
  auto* scales = reinterpret_cast<float*>(spare + aligned(packed_value_bytes(stored.format, stored.out, stored.in)));
  expect(kernels::pack_quantised(codes, spare, scales, stream_), "pack_quantised");
  quant::Weight weight{plain(compute_dtype_), stored.out, stored.in,
                       allocate(static_cast<size_t>(stored.out * stored.in) * dtype_bytes(compute_dtype_))};
  const kernels::DequantiseArgs args{.format = format,
                                     .element = element(),
                                     .values = spare,
                                     .scales = scales,
                                     .rows = stored.out,
                                     .in = stored.in,
                                     .out = weight.values.data()};
  expect(kernels::dequantise(args, stream_), "dequantise");
  return weight;
}

quant::Weight CudaBackend::load_weight(const quant::StoredMatrix& stored) {
  check(stored.out >= 0 && stored.in >= 0 && stored.in % input_multiple(stored.format) == 0, "load_weight: a shape");
  if (is_plain(stored.format)) {
    return {plain(compute_dtype_), stored.out, stored.in,
            load_table(stored.values, info(stored.format).storage, stored.out * stored.in)};
  }
  const Landing room(stored.format, stored.out, stored.in, !keeps_quantised());
  auto* values = static_cast<std::byte*>(load_scratch_.at_least(*this, room.bytes));
  std::byte* scales = values + aligned(room.values);
  expect(cudaMemcpyAsync(values, stored.values, room.values, cudaMemcpyHostToDevice, stream_), "load_weight");
  expect(cudaMemcpyAsync(scales, stored.scales, room.scales, cudaMemcpyHostToDevice, stream_), "load_weight");
  return make_quantised({stored.format, stored.out, stored.in, values, reinterpret_cast<const float*>(scales)},
                        values + room.spare_at);
}

quant::Weight CudaBackend::random_weight(const RandomBlock& block, quant::QuantFormat format) {
  if (is_plain(format)) return {plain(compute_dtype_), block.rows(), block.cols, random_table(block)};
  const Landing room(format, block.rows(), block.cols, !keeps_quantised());
  auto* values = static_cast<std::byte*>(load_scratch_.at_least(*this, room.bytes));
  std::byte* at = values;
  for (const RandomBlock::Run& run : block.runs) {
    const kernels::RandomCodes codes{.format = weight_format(format),
                                     .key = block.key,
                                     .first_row = run.first_row,
                                     .rows = run.rows,
                                     .first_col = block.first_col,
                                     .cols = block.cols,
                                     .whole_cols = block.whole_cols};
    expect(kernels::fill_random_codes(codes, at, stream_), "fill_random_codes");
    at += value_bytes(format, run.rows, block.cols);
  }
  auto* scales = reinterpret_cast<float*>(values + aligned(room.values));
  const auto scale_count = static_cast<int64_t>(room.scales / sizeof(float));
  expect(kernels::fill(quant::random_scale(block, format), scale_count, scales, stream_), "fill");
  return make_quantised({format, block.rows(), block.cols, values, scales}, values + room.spare_at);
}

quant::Weight CudaBackend::weight_of_table(const Tensor& table) {
  check(table.ndim() == 2 && table.contiguous() && table.dtype() == compute_dtype_, "weight_of_table: a whole table");
  return {plain(compute_dtype_), table.dim(0), table.dim(1), Buffer(table.raw(), table.bytes(), device_, keep)};
}

}  // namespace optserve::backend
