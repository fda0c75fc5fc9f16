// A block takes 256 outputs and a part of the inputs. It lists the inputs of its part that count, and its warps take
// those in turn, 8 outputs per lane. Pieces of W go through a ring in shared memory, so that many of them are in
// flight; every lane reads back only what it copied itself. The last block to finish among those of the same outputs
// adds the sums of all parts in their order.
#include <algorithm>

#include "kernels/dependent_launch.cuh"
#include "kernels/element_ops.cuh"
#include "kernels/quantised.h"
#include "kernels/relu_skip_linear.h"

namespace optserve::kernels {
namespace {

constexpr int kWarps = 8, kLanes = 32;
constexpr int kThreads = kWarps * kLanes;
constexpr unsigned kAllLanes = 0xffffffff;
constexpr int kLaneOutputs = 8;
constexpr int kTileOutputs = kLanes * kLaneOutputs;  // of a block
constexpr int kThreadInputs = 8;                     // that a thread looks at: 16 bytes of each row
constexpr int kListMax = kThreads * kThreadInputs;   // inputs that a block looks at before it multiplies
constexpr int kRingBytes = 48 << 10;                 // of W in flight, per block
constexpr int kBlocksEach = 2;                       // of a multiprocessor
constexpr int kPartsMax = 32;                        // more take longer to add up than to read
static_assert(kTileOutputs == kThreads && kLaneOutputs == kPack<__half>);

// The elements of x of one input.
template <class T, int kRows>
struct alignas(sizeof(T) * kRows) Column {
  T of[kRows];
};

// The inputs that count, as offsets from the first input looked at.
template <class T, int kRows>
struct List {
  Column<T, kRows> x[kListMax];
  uint16_t input[kListMax];
  int of_warps[kWarps];  // how many each warp has found
};

template <class T, int kRows>
struct Shared {
  union {
    struct {
      unsigned char ring[kRingBytes];
      List<T, kRows> list;
    };
    float sums[kWarps][kRows][kTileOutputs];  // once everything has been multiplied
  };
  bool is_last;
};

// Where blocks hand over parts: a counter of finished parts for each tile, then their sums.
struct Scratch {
  int* finished;
  float* sums;
};

// What a lane copies for one input: 8 elements.
template <int kBytes>
__device__ __forceinline__ void copy_piece(uint32_t to, const void* from, bool inside) {
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
                 "r"(inside ? 16 : 0)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
                 "r"(inside ? 8 : 0)
                 : "memory");
  }
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kLeft>
__device__ __forceinline__ void await_pieces() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// Lists those of the inputs [first, first + count) that count, with `count` at most kListMax. Returns their number. All
// threads call it.
template <class T, int kRows>
__device__ __forceinline__ int make_list(List<T, kRows>& list, const ReluSkipArgs& args, int first, int count) {
  const int begin = static_cast<int>(threadIdx.x) * kThreadInputs, warp = static_cast<int>(threadIdx.x) / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  Column<T, kThreadInputs> rows[kRows];
  uint32_t counts = 0;  // a bit for each input
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    uint4 raw{};
    if (begin < count && row < args.rows) {
      raw = *reinterpret_cast<const uint4*>(static_cast<const T*>(args.x) + row * args.x_stride + first + begin);
    }
    reinterpret_cast<uint4&>(rows[row]) = raw;
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < kThreadInputs; ++i) {  // -0 is zero, NaN is not
      if ((words[i / 2] >> (i % 2 * 16) & 0x7fffu) != 0) counts |= 1u << i;
    }
  }
  int before = __popc(counts);
#pragma unroll
  for (int step = 1; step < kLanes; step *= 2) {
    const int other = __shfl_up_sync(kAllLanes, before, step);
    if (lane >= step) before += other;
  }
  __syncthreads();  // the previous list has been used
  if (lane == kLanes - 1) list.of_warps[warp] = before;
  before -= __popc(counts);
  __syncthreads();
  int total = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) {
    if (i < warp) before += list.of_warps[i];
    total += list.of_warps[i];
  }
#pragma unroll
  for (int i = 0; i < kThreadInputs; ++i) {
    if ((counts >> i & 1) == 0) continue;
    Column<T, kRows> column;
#pragma unroll
    for (int row = 0; row < kRows; ++row) column.of[row] = rows[row].of[i];
    list.x[before] = column;
    list.input[before++] = static_cast<uint16_t>(begin + i);
  }
  __syncthreads();
  return total;
}

// The pieces of W that one lane multiplies.
template <class T, bool kInt8, int kRows>
class Pieces {
 public:
  // `ring` is the address of the block's ring in shared memory, `outputs` points into [in, out] at this lane's first
  // output.
  __device__ __forceinline__ Pieces(uint32_t ring, const void* outputs, bool inside, int64_t out)
      : ring_(ring + threadIdx.x * kBytes), outputs_(static_cast<const char*>(outputs)), inside_(inside), out_(out) {}

  // Adds the products of this warp's share of a list of `count` inputs, which counts from input `first`.
  __device__ __forceinline__ void multiply(const List<T, kRows>& list, int first, int count,
                                           float (&sums)[kRows][kLaneOutputs]) {
    const int warp = static_cast<int>(threadIdx.x) / kLanes;
    int asked = warp;
    int slot = 0;
    const auto ask = [&] {
      const bool more = asked < count;
      const int64_t input = first + (more ? list.input[asked] : 0);
      copy_piece<kBytes>(ring_ + slot * kSlotBytes, outputs_ + input * out_ * kElementBytes, more && inside_);
      asked += kWarps;
      slot = slot + 1 == kDepth ? 0 : slot + 1;
    };
#pragma unroll 4
    for (int i = 0; i < kDepth; ++i) ask();
    for (int i = warp; i < count; i += kWarps) {
      await_pieces<kDepth - 1>();
      float weights[kLaneOutputs];
      read(slot, weights);
      const Column<T, kRows> x = list.x[i];
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        const float element = to_float(x.of[row]);
#pragma unroll
        for (int output = 0; output < kLaneOutputs; ++output) sums[row][output] += element * weights[output];
      }
      ask();
    }
    await_pieces<0>();
  }

 private:
  static constexpr int kElementBytes = kInt8 ? 1 : 2;
  static constexpr int kBytes = kLaneOutputs * kElementBytes;
  static constexpr int kSlotBytes = kThreads * kBytes;
  static constexpr int kDepth = kRingBytes / kSlotBytes;

  __device__ __forceinline__ void read(int slot, float (&weights)[kLaneOutputs]) const {
    const uint32_t from = ring_ + slot * kSlotBytes;
    if constexpr (kInt8) {
      uint2 raw;
      asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(raw.x), "=r"(raw.y) : "r"(from) : "memory");
      unpack_int8(raw, weights);
    } else {
      uint4 raw;
      asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
                   : "r"(from)
                   : "memory");
      unpack<T>(raw, weights);
    }
  }

  uint32_t ring_;
  const char* outputs_;
  bool inside_;
  int64_t out_;
};

template <class T, int kRows>
__device__ __forceinline__ void store(const ReluSkipArgs& args, int64_t output, const float (&sums)[kRows]) {
  if (output >= args.out) return;
  const float scale = args.scales == nullptr ? 1.0f : args.scales[output];
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    if (row < args.rows) static_cast<T*>(args.y)[row * args.y_stride + output] = from_float<T>(sums[row] * scale);
  }
}

// Grid: tiles of outputs, parts of the inputs.
template <class T, bool kInt8, int kRows>
__global__ void __launch_bounds__(kThreads, kBlocksEach)
    relu_skip_kernel(const __grid_constant__ ReluSkipArgs args, const Scratch scratch) {
  extern __shared__ __align__(16) unsigned char raw_shared[];
  auto& shared = *reinterpret_cast<Shared<T, kRows>*>(raw_shared);
  allow_next();
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kLanes, lane = thread % kLanes;
  const int parts = static_cast<int>(gridDim.y), part = static_cast<int>(blockIdx.y);
  const int64_t groups = args.in / kThreadInputs;
  const int begin = static_cast<int>(groups * part / parts) * kThreadInputs;
  const int end = static_cast<int>(groups * (part + 1) / parts) * kThreadInputs;
  const int64_t first_output = static_cast<int64_t>(blockIdx.x) * kTileOutputs;
  const int64_t lane_output = first_output + lane * kLaneOutputs;
  const bool inside = lane_output < args.out;
  Pieces<T, kInt8, kRows> pieces(static_cast<uint32_t>(__cvta_generic_to_shared(shared.ring)),
                                 static_cast<const char*>(args.by_input) + (inside ? lane_output : 0) * (kInt8 ? 1 : 2),
                                 inside, args.out);
  wait_for_previous();

  float sums[kRows][kLaneOutputs] = {};
  for (int first = begin; first < end; first += kListMax) {
    const int count = make_list(shared.list, args, first, min(kListMax, end - first));
    pieces.multiply(shared.list, first, count, sums);
  }
  __syncthreads();  // the ring and the list have been used
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    auto* to = reinterpret_cast<float4*>(&shared.sums[warp][row][lane * kLaneOutputs]);
    to[0] = make_float4(sums[row][0], sums[row][1], sums[row][2], sums[row][3]);
    to[1] = make_float4(sums[row][4], sums[row][5], sums[row][6], sums[row][7]);
  }
  __syncthreads();
  float total[kRows] = {};
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
#pragma unroll
    for (int i = 0; i < kWarps; ++i) total[row] += shared.sums[i][row][thread];
  }
  if (parts == 1) return store<T>(args, first_output + thread, total);

  float* sums_of_tile = scratch.sums + static_cast<int64_t>(blockIdx.x) * parts * kRows * kTileOutputs + thread;
#pragma unroll
  for (int row = 0; row < kRows; ++row) __stcg(sums_of_tile + (part * kRows + row) * kTileOutputs, total[row]);
  __threadfence();
  __syncthreads();
  if (thread == 0) shared.is_last = atomicAdd(&scratch.finished[blockIdx.x], 1) == parts - 1;
  __syncthreads();
  if (!shared.is_last) return;
  __threadfence();
#pragma unroll
  for (int row = 0; row < kRows; ++row) total[row] = 0;
#pragma unroll 8
  for (int i = 0; i < parts; ++i) {
#pragma unroll
    for (int row = 0; row < kRows; ++row) total[row] += __ldcg(sums_of_tile + (i * kRows + row) * kTileOutputs);
  }
  store<T>(args, first_output + thread, total);
  if (thread == 0) scratch.finished[blockIdx.x] = 0;
}

int64_t tiles_of(int64_t out) { return (out + kTileOutputs - 1) / kTileOutputs; }

int64_t places(const DeviceLimits& device) { return int64_t{kBlocksEach} * device.multiprocessors; }

// As many parts as fill the device, with at least 32 inputs each.
int64_t parts_of(const ReluSkipArgs& args, const DeviceLimits& device) {
  const int64_t fitting = std::min(places(device) / tiles_of(args.out), args.in / (4 * kThreadInputs));
  return std::clamp<int64_t>(fitting, 1, kPartsMax);
}

template <class T, bool kInt8, int kRows>
cudaError_t launch(const ReluSkipArgs& args, void* scratch, const DeviceLimits& device, cudaStream_t stream) {
  constexpr auto kKernel = relu_skip_kernel<T, kInt8, kRows>;
  constexpr int kBytes = static_cast<int>(sizeof(Shared<T, kRows>));
  const cudaError_t error = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  auto* finished = static_cast<int*>(scratch);
  const Scratch where{finished, reinterpret_cast<float*>(finished + places(device))};
  const dim3 grid(static_cast<unsigned>(tiles_of(args.out)), static_cast<unsigned>(parts_of(args, device)));
  return launch_dependent<kKernel>({grid, dim3(kThreads), kBytes}, stream, args, where);
}

template <class T, bool kInt8>
cudaError_t launch_rows(const ReluSkipArgs& args, void* scratch, const DeviceLimits& device, cudaStream_t stream) {
  if (args.rows == 1) return launch<T, kInt8, 1>(args, scratch, device, stream);
  if (args.rows == 2) return launch<T, kInt8, 2>(args, scratch, device, stream);
  if (args.rows <= 4) return launch<T, kInt8, 4>(args, scratch, device, stream);
  return launch<T, kInt8, 8>(args, scratch, device, stream);
}

template <class T>
cudaError_t launch_format(const ReluSkipArgs& args, void* scratch, const DeviceLimits& device, cudaStream_t stream) {
  if (args.scales != nullptr) return launch_rows<T, true>(args, scratch, device, stream);
  return launch_rows<T, false>(args, scratch, device, stream);
}

constexpr int kSquare = 64;  // side of the square of elements that a block transposes

__global__ void __launch_bounds__(kThreads)
    transpose_kernel(const uint16_t* from, int64_t out, int64_t in, uint16_t* to) {
  __shared__ uint16_t square[kSquare][kSquare + 2];
  const int64_t first_in = static_cast<int64_t>(blockIdx.x) * kSquare;
  const int64_t first_out = static_cast<int64_t>(blockIdx.y) * kSquare;
  wait_for_previous();
  for (int i = threadIdx.x; i < kSquare * kSquare; i += kThreads) {
    const int row = i / kSquare, column = i % kSquare;
    if (first_out + row < out && first_in + column < in) {
      square[row][column] = from[(first_out + row) * in + first_in + column];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kSquare * kSquare; i += kThreads) {
    const int row = i / kSquare, column = i % kSquare;
    if (first_in + row < in && first_out + column < out) {
      to[(first_in + row) * out + first_out + column] = square[column][row];
    }
  }
}

// Each thread makes one code of the result.
__global__ void __launch_bounds__(kThreads) codes_kernel(const uint8_t* packed, int64_t out, int64_t in, uint8_t* to) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  wait_for_previous();
  if (index >= out * in) return;
  const int64_t input = index / out, output = index % out, octet = output / kOctet;
  constexpr int64_t kInputs = unit_inputs(WeightFormat::kInt8);
  const int64_t unit = unit_index(octet, input / kInputs, units_of(WeightFormat::kInt8, in));
  const int step = static_cast<int>(input % kInputs) / 16, place = static_cast<int>(input % 16);
  const int lane = static_cast<int>(output % kOctet) * 4 + place % 8 / 2, byte = place % 2 + place / 8 * 2;
  to[index] = packed[unit * kUnitBytes + 16 * lane + 4 * step + byte] ^ 0x80u;
}

}  // namespace

bool can_relu_skip(const ReluSkipArgs& args, const DeviceLimits& device) {
  if (args.element != Element::kF16 && args.element != Element::kBF16) return false;
  if (args.rows > kReluSkipRowsMax || args.in > (1 << 28) || tiles_of(args.out) > places(device)) return false;
  if (args.in % kThreadInputs != 0 || args.out % kLaneOutputs != 0) return false;
  if (args.rows > 1 && args.x_stride % kThreadInputs != 0) return false;
  if (static_cast<int>(sizeof(Shared<__half, kReluSkipRowsMax>)) > device.shared_bytes_max) return false;
  return aligned_to_packs({args.x, args.by_input});
}

cudaError_t relu_skip_linear(const ReluSkipArgs& args, void* scratch, const DeviceLimits& device, cudaStream_t stream) {
  if (!can_relu_skip(args, device)) return cudaErrorInvalidValue;
  if (args.rows == 0 || args.out == 0) return cudaSuccess;
  if (args.element == Element::kF16) return launch_format<__half>(args, scratch, device, stream);
  return launch_format<__nv_bfloat16>(args, scratch, device, stream);
}

size_t relu_skip_scratch_bytes(const DeviceLimits& device) {
  const auto blocks = static_cast<size_t>(places(device));
  return blocks * (sizeof(int) + kReluSkipRowsMax * kTileOutputs * sizeof(float));
}

cudaError_t order_by_input(const void* row_major, int64_t out, int64_t in, void* by_input, cudaStream_t stream) {
  if (out == 0 || in == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>((in + kSquare - 1) / kSquare),
                  static_cast<unsigned>((out + kSquare - 1) / kSquare));
  return launch_dependent<transpose_kernel>({grid, dim3(kThreads)}, stream, static_cast<const uint16_t*>(row_major),
                                            out, in, static_cast<uint16_t*>(by_input));
}

cudaError_t order_codes_by_input(const void* packed, int64_t out, int64_t in, void* by_input, cudaStream_t stream) {
  if (out == 0 || in == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((out * in + kThreads - 1) / kThreads);
  return launch_dependent<codes_kernel>({dim3(blocks), dim3(kThreads)}, stream, static_cast<const uint8_t*>(packed),
                                        out, in, static_cast<uint8_t*>(by_input));
}

}  // namespace optserve::kernels
