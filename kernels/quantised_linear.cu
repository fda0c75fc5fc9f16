// Each multiplication is an mma.m16n8k16 of two octets of W with up to eight rows of x. A block has some octets of its
// own and takes a pass of four or eight of them at a time; its warps share the inputs, unit by unit. A warp streams its
// units, and the columns of x that belong to them, through a ring in shared memory that no other warp reads, so the
// ring needs no barrier of the block.
#include <algorithm>

#include "kernels/dependent_launch.cuh"
#include "kernels/element_ops.cuh"
#include "kernels/quantised_linear.h"
#include "kernels/quantised_ring.cuh"

namespace optserve::kernels {
namespace {

// The cells [row, output] of a pass that a thread finishes. Scales and biases are requested before the products begin.
template <class T, WeightFormat kFormat, int kRows, Depth kOfRing>
struct Cells {
  using L = Layout<kFormat, kRows, kOfRing>;
  static constexpr int kWarps = L::kWarps, kThreads = L::kThreads, kTile = L::kTile;
  static constexpr int kEach = (kRows * kTile + kThreads - 1) / kThreads;
  int64_t first;  // output of the pass
  int64_t count;  // outputs of the pass that exist
  float scales[kEach];
  T biases[kEach];  // converted only when it is used, since the conversion waits for the load

  __device__ __forceinline__ Cells(const QuantisedLinearArgs& args, int octet, int octets)
      : first(octet * kOctet), count(min(static_cast<int64_t>(octets) * kOctet, args.out - first)) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int64_t column = (threadIdx.x + i * kThreads) % kTile;
      scales[i] = 1, biases[i] = from_float<T>(0);
      if (column >= count) continue;
      if (kFormat != WeightFormat::kInt4) scales[i] = args.scales[first + column];
      if (args.bias != nullptr) biases[i] = static_cast<const T*>(args.bias)[first + column];
    }
  }

  // Adds the sums of the warps in their order; `partial`: [kWarps][kRows][kTile].
  __device__ __forceinline__ void finish(const QuantisedLinearArgs& args, const float* partial) const {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int cell = static_cast<int>(threadIdx.x) + i * kThreads, row = cell / kTile, column = cell % kTile;
      if (row >= args.rows || column >= count) continue;
      float sum = 0;
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) sum += partial[warp * kRows * kTile + cell];
      sum = sum * scales[i] + to_float(biases[i]);
      if (args.relu && sum < 0) sum = 0;
      const int64_t at = row * args.y_stride + first + column;
      if (args.out_f32) {
        static_cast<float*>(args.y)[at] = sum;
      } else {
        static_cast<T*>(args.y)[at] = from_float<T>(sum);
      }
    }
  }
};

template <class T, WeightFormat kFormat, int kRows, Depth kOfRing>
__device__ __forceinline__ void multiply_share(const QuantisedLinearArgs& args) {
  using L = Layout<kFormat, kRows, kOfRing>;
  extern __shared__ __align__(16) char shared[];
  allow_next();
  const Share<L::kOctets> share(static_cast<int>(octets_of(args.out)));
  Ring<T, kFormat, kRows, kOfRing> ring(args, share, static_cast<uint32_t>(__cvta_generic_to_shared(shared)));
  ring.start();
  float* partial = reinterpret_cast<float*>(shared + L::kWarps * L::kRingBytes);
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  const int units = ring.units_of_pass();
  for (int pass = 0; pass < share.passes; ++pass) {
    const int first = share.pass_begin(pass), octets = share.pass_begin(pass + 1) - first;
    const Cells<T, kFormat, kRows, kOfRing> cells(args, first, octets);
    typename Ring<T, kFormat, kRows, kOfRing>::Sums sums = {};
    for (int i = 0; i < units; ++i) ring.multiply_unit(sums, octets);
    if (pass > 0) __syncthreads();  // the sums of the previous pass have been read
#pragma unroll
    for (int i = 0; i < L::kOctets / 2; ++i) {
#pragma unroll
      for (int part = 0; part < 4 * L::kRowOctets; ++part) {
        const int row = part / 4 * 8 + lane % 4 * 2 + part % 2,
                  output = (i * 2 + part % 4 / 2) * static_cast<int>(kOctet) + lane / 4;
        if (row < args.rows) partial[(warp * kRows + row) * L::kTile + output] = sums[i][part / 4][part % 4];
      }
    }
    __syncthreads();
    cells.finish(args, partial);
  }
  await_groups<0>();
}

template <class T, WeightFormat kFormat, int kRows, Depth kOfRing>
__global__ void __launch_bounds__(Layout<kFormat, kRows, kOfRing>::kThreads, kOfRing == Depth::kFlat ? 2 : 1)
    quantised_kernel(const QuantisedLinearArgs args) {
  if constexpr (kHasBulkCopies || kOfRing == Depth::kFlat) multiply_share<T, kFormat, kRows, kOfRing>(args);
}

template <class T, WeightFormat kFormat, int kRows, Depth kOfRing>
cudaError_t launch(const QuantisedLinearArgs& args, unsigned blocks, cudaStream_t stream) {
  using L = Layout<kFormat, kRows, kOfRing>;
  constexpr auto kKernel = quantised_kernel<T, kFormat, kRows, kOfRing>;
  const cudaError_t error = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes);
  if (error != cudaSuccess) return error;
  return launch_dependent<kKernel>({dim3(blocks), dim3(L::kThreads), L::kBytes}, stream, args);
}

template <class T, WeightFormat kFormat, int kRows>
cudaError_t launch_deepest(const QuantisedLinearArgs& args, const DeviceLimits& device, cudaStream_t stream) {
  const auto has_room = [&](int bytes) { return device.compute_capability >= 90 && bytes <= device.shared_bytes_max; };
  const int64_t octets = octets_of(args.out);
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(octets, device.multiprocessors));
  if constexpr (kIsWide<kFormat, kRows>) {
    constexpr int kFew = Layout<kFormat, kRows, Depth::kDeep>::kOctets;
    if (octets > int64_t{blocks} * kFew && has_room(Layout<kFormat, kRows, Depth::kWide>::kBytes)) {
      return launch<T, kFormat, kRows, Depth::kWide>(args, blocks, stream);
    }
  }
  if (has_room(Layout<kFormat, kRows, Depth::kDeep>::kBytes)) {
    return launch<T, kFormat, kRows, Depth::kDeep>(args, blocks, stream);
  }
  return launch<T, kFormat, kRows, Depth::kFlat>(args, blocks, stream);
}

// Calls make() with the format and the rows as constants.
template <class Make>
auto with_shape(WeightFormat format, int64_t rows, const Make& make) {
  const auto with_rows = [&](auto known_format) {
    if (rows <= 2) return make(known_format, std::integral_constant<int, 2>());
    if (rows <= 8) return make(known_format, std::integral_constant<int, 8>());
    return make(known_format, std::integral_constant<int, 16>());
  };
  if (format == WeightFormat::kInt4) return with_rows(std::integral_constant<WeightFormat, WeightFormat::kInt4>());
  if (format == WeightFormat::kFp8) return with_rows(std::integral_constant<WeightFormat, WeightFormat::kFp8>());
  return with_rows(std::integral_constant<WeightFormat, WeightFormat::kInt8>());
}

}  // namespace

bool can_quantised_linear(const QuantisedLinearArgs& args, const DeviceLimits& device) {
  if (args.format == WeightFormat::kPlain || args.element == Element::kF32) return false;
  if (args.rows > kQuantisedRowsMax || args.in > (1 << 28) ||
      packed_bytes(args.format, args.out, args.in) / kUnitBytes > UINT32_MAX || args.in % kPieceInputs != 0) {
    return false;
  }
  if (args.rows > 1 && args.x_stride % kPieceInputs != 0) return false;
  const int needed = with_shape(args.format, args.rows, [](auto format, auto rows) {
    return Layout<format.value, rows.value, Depth::kFlat>::kBytes;
  });
  return needed <= device.shared_bytes_max && aligned_to_packs({args.x, args.values});
}

cudaError_t quantised_linear(const QuantisedLinearArgs& args, const DeviceLimits& device, cudaStream_t stream) {
  if (!can_quantised_linear(args, device)) return cudaErrorInvalidValue;
  if (args.rows == 0 || args.out == 0) return cudaSuccess;
  return with_shape(args.format, args.rows, [&](auto format, auto rows) {
    return args.element == Element::kF16
               ? launch_deepest<__half, format.value, rows.value>(args, device, stream)
               : launch_deepest<__nv_bfloat16, format.value, rows.value>(args, device, stream);
  });
}

}  // namespace optserve::kernels
