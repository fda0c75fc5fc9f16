#include <algorithm>

#include "kernels/dependent_launch.cuh"
#include "kernels/element_ops.cuh"
#include "kernels/elementwise.h"

namespace optserve::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlocksMax = 4096;  // for kernels whose blocks loop over the whole array
constexpr int kRun = 8;               // elements a thread converts or fills at once

unsigned blocks_for(int64_t items) {
  return static_cast<unsigned>(std::min((items + kThreads - 1) / kThreads, kBlocksMax));
}

// A grid of [rows, parts of a row] and its threads, for rows of `units` accesses.
struct RowGrid {
  dim3 grid;
  unsigned threads;

  RowGrid(int64_t rows, int64_t units)
      : threads(static_cast<unsigned>(std::min<int64_t>((units + 31) / 32 * 32, kThreads))) {
    grid.x = static_cast<unsigned>(rows);
    grid.y = static_cast<unsigned>(std::min<int64_t>((units + threads - 1) / threads, 65535));
  }
  LaunchShape launch() const { return {grid, threads}; }
};

// The first unit of this thread in its row, and the distance to the next one.
__device__ __forceinline__ int64_t first_unit() { return static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ int64_t unit_stride() { return static_cast<int64_t>(gridDim.y) * blockDim.x; }

__device__ __forceinline__ int64_t global_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// The id of a row; the first part of a row stores it.
__device__ __forceinline__ int32_t take_id(const EmbedArgs& args, int64_t row) {
  if (args.new_ids == nullptr) return args.ids[row];
  const int32_t slot = args.slots[row], fresh = args.new_ids[row];
  const bool stores = blockIdx.y == 0 && threadIdx.x == 0;
  int32_t id = -1;
  if (slot >= 0) {
    int32_t* known = args.history + slot * args.history_stride + args.positions[row];
    id = fresh >= 0 ? fresh : *known;
    if (stores && fresh >= 0) *known = fresh;
  }
  if (stores) args.ids[row] = id;
  return id;
}

__device__ __forceinline__ void update_table(const EmbedArgs& args) {
  const int64_t block = static_cast<int64_t>(blockIdx.x) * gridDim.y + blockIdx.y;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * gridDim.y * blockDim.x;
  for (int64_t i = block * blockDim.x + threadIdx.x; i < args.num_updates; i += threads) {
    const int32_t* update = args.updates + 3 * i;
    if (update[0] >= 0) args.block_table[update[0] * args.table_stride + update[1]] = update[2];
  }
}

template <class T, int kItems>
__global__ void embed_kernel(EmbedArgs args) {
  allow_next();
  wait_for_previous();
  update_table(args);
  const int64_t row = blockIdx.x, table_row = take_id(args, row) - args.first_id;
  const bool known = table_row >= 0 && table_row < args.table_rows;
  const int64_t position = args.position_table != nullptr ? args.positions[row] : -1;
  const T* token = static_cast<const T*>(args.table) + (known ? table_row * args.width : 0);
  const T* place = static_cast<const T*>(args.position_table) + (position >= 0 ? position * args.width : 0);
  for (int64_t i = first_unit() * kItems; i < args.width; i += unit_stride() * kItems) {
    float values[kItems] = {}, addend[kItems] = {};
    if (known) load_items(token + i, values);
    if (position >= 0) load_items(place + i, addend);
#pragma unroll
    for (int j = 0; j < kItems; ++j) values[j] += addend[j];
    store_items(static_cast<T*>(args.out) + row * args.width + i, values);
  }
}

template <class T, int kItems>
__global__ void add_positions_kernel(const int32_t* positions, const T* table, int64_t width, T* x) {
  allow_next();
  wait_for_previous();
  const int64_t row = blockIdx.x;
  const int64_t position = positions[row];
  if (position < 0) return;
  for (int64_t i = first_unit() * kItems; i < width; i += unit_stride() * kItems) {
    float sum[kItems], addend[kItems];
    load_items(x + row * width + i, sum);
    load_items(table + position * width + i, addend);
#pragma unroll
    for (int j = 0; j < kItems; ++j) sum[j] += addend[j];
    store_items(x + row * width + i, sum);
  }
}

template <class T>
__global__ void gelu_kernel(T* x, int64_t stride, int64_t width) {
  allow_next();
  wait_for_previous();
  T* row = x + blockIdx.x * stride;
  for (int64_t i = first_unit(); i < width; i += unit_stride()) {
    const float value = to_float(row[i]);
    row[i] = from_float<T>(0.5f * value * (1.0f + erff(value * 0.70710678f)));
  }
}

// A Unit is as many bytes as the alignment of all rows allows.
template <class Unit>
__global__ void gather_rows_kernel(const char* x, int64_t x_stride, const int32_t* rows, int64_t row_bytes, char* out) {
  allow_next();
  wait_for_previous();
  const int64_t source = rows[blockIdx.x];
  const auto* from = reinterpret_cast<const Unit*>(x + source * x_stride);
  auto* to = reinterpret_cast<Unit*>(out + blockIdx.x * row_bytes);
  const int64_t units = row_bytes / static_cast<int64_t>(sizeof(Unit));
  for (int64_t i = first_unit(); i < units; i += unit_stride()) to[i] = source < 0 ? Unit{} : from[i];
}

// blockIdx.x: a part of `out`, [num_rows, world].
template <class Unit>
__global__ void interleave_ranks_kernel(const char* in, int64_t world, int64_t num_rows, int64_t bytes, char* out) {
  allow_next();
  wait_for_previous();
  const int64_t row = blockIdx.x / world, rank = blockIdx.x % world;
  const auto* from = reinterpret_cast<const Unit*>(in + (rank * num_rows + row) * bytes);
  auto* to = reinterpret_cast<Unit*>(out + blockIdx.x * bytes);
  const int64_t units = bytes / static_cast<int64_t>(sizeof(Unit));
  for (int64_t i = first_unit(); i < units; i += unit_stride()) to[i] = from[i];
}

// Calls launch(Unit()) with the widest unit that divides `bits`, the OR of the addresses, strides and sizes.
template <class Launch>
cudaError_t with_unit(uint64_t bits, const Launch& launch) {
  if (bits % 16 == 0) return launch(uint4());
  if (bits % 4 == 0) return launch(uint32_t());
  if (bits % 2 == 0) return launch(uint16_t());
  return launch(uint8_t());
}

uint64_t bits_of(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

template <class T>
__global__ void __launch_bounds__(kThreads) sum_ranks_kernel(const T* in, int64_t world, int64_t count, T* out) {
  allow_next();
  wait_for_previous();
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = global_thread(); i < count; i += stride) {
    float sum = to_float(in[i]);
    for (int64_t rank = 1; rank < world; ++rank) sum += to_float(in[rank * count + i]);
    out[i] = from_float<T>(sum);
  }
}

// kItems: kRun where both arrays are aligned, else 1.
template <int kItems, class From, class To>
__global__ void __launch_bounds__(kThreads) convert_kernel(const From* in, To* out, int64_t count) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads * kItems;
  int64_t i = global_thread() * kItems;
  for (; i + kItems <= count; i += stride) {
    float values[kItems];
    load_items(in + i, values);
    store_items(out + i, values);
  }
  for (; i < count; ++i) out[i] = from_float<To>(to_float(in[i]));  // one thread has the incomplete run at the end
}

__device__ __forceinline__ uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// Two roundings after the exact `unit`, as the CPU has them: the compiler must not contract them to one.
__device__ __forceinline__ float random_value(const RandomBlock& block, uint64_t index) {
  const float unit = __uint2float_rn(static_cast<uint32_t>(mix(block.key + index) >> 40)) * 0x1p-23f - 1.0f;
  return __fadd_rn(block.centre, __fmul_rn(block.reach, unit));
}

// A place in a block, and its position in the whole matrix.
struct Place {
  int64_t row, col;

  __device__ __forceinline__ void advance(const Place& step, int64_t cols) {
    row += step.row;
    col += step.col;
    if (col < cols) return;
    col -= cols;
    ++row;
  }
  __device__ __forceinline__ uint64_t index(const RandomBlock& block) const {
    return static_cast<uint64_t>((block.first_row + row) * block.whole_cols + block.first_col + col);
  }
};

template <class Rounded, class T>
__global__ void __launch_bounds__(kThreads) fill_random_kernel(RandomBlock block, bool aligned, T* out) {
  const int64_t count = block.rows * block.cols;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads * kRun;
  const Place step{stride / block.cols, stride % block.cols};
  const Place next{block.cols == 1 ? 1 : 0, block.cols == 1 ? 0 : 1};
  int64_t i = global_thread() * kRun;
  Place place{i / block.cols, i % block.cols};
  for (; i + kRun <= count; i += stride) {
    float values[kRun];
    if (place.col + kRun <= block.cols) {
      const uint64_t first = place.index(block);
#pragma unroll
      for (int j = 0; j < kRun; ++j) values[j] = rounded<Rounded>(random_value(block, first + j));
    } else {
      Place at = place;
#pragma unroll
      for (int j = 0; j < kRun; ++j) {
        values[j] = rounded<Rounded>(random_value(block, at.index(block)));
        at.advance(next, block.cols);
      }
    }
    if (aligned) {
      store_items(out + i, values);
    } else {
#pragma unroll
      for (int j = 0; j < kRun; ++j) out[i + j] = from_float<T>(values[j]);
    }
    place.advance(step, block.cols);
  }
  for (; i < count; ++i) {  // one thread has the incomplete run at the end
    out[i] = from_float<T>(rounded<Rounded>(random_value(block, place.index(block))));
    place.advance(next, block.cols);
  }
}

}  // namespace

cudaError_t embed(const EmbedArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0 || args.width == 0) return cudaSuccess;
  return with_element(args.element, [&](auto zero) {
    using T = decltype(zero);
    if (args.width % kPack<T> == 0 && aligned_to_packs({args.table, args.position_table, args.out})) {
      const RowGrid shape(args.num_rows, args.width / kPack<T>);
      return launch_dependent<embed_kernel<T, kPack<T>>>(shape.launch(), stream, args);
    }
    const RowGrid shape(args.num_rows, args.width);
    return launch_dependent<embed_kernel<T, 1>>(shape.launch(), stream, args);
  });
}

cudaError_t add_positions(const AddPositionsArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0 || args.width == 0) return cudaSuccess;
  return with_element(args.element, [&](auto zero) {
    using T = decltype(zero);
    const auto* rows = static_cast<const T*>(args.table);
    auto* sums = static_cast<T*>(args.x);
    if (args.width % kPack<T> == 0 && aligned_to_packs({args.table, args.x})) {
      const RowGrid shape(args.num_rows, args.width / kPack<T>);
      return launch_dependent<add_positions_kernel<T, kPack<T>>>(shape.launch(), stream, args.positions, rows,
                                                                 args.width, sums);
    }
    const RowGrid shape(args.num_rows, args.width);
    return launch_dependent<add_positions_kernel<T, 1>>(shape.launch(), stream, args.positions, rows, args.width, sums);
  });
}

cudaError_t gelu(const GeluArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0 || args.width == 0) return cudaSuccess;
  return with_element(args.element, [&](auto zero) {
    using T = decltype(zero);
    const RowGrid shape(args.num_rows, args.width);
    return launch_dependent<gelu_kernel<T>>(shape.launch(), stream, static_cast<T*>(args.x), args.stride, args.width);
  });
}

cudaError_t gather_rows(const GatherRowsArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0 || args.row_bytes == 0) return cudaSuccess;
  const uint64_t bits =
      bits_of(args.x) | bits_of(args.out) | static_cast<uint64_t>(args.x_stride_bytes | args.row_bytes);
  return with_unit(bits, [&](auto zero) {
    using Unit = decltype(zero);
    const RowGrid shape(args.num_rows, args.row_bytes / static_cast<int64_t>(sizeof(Unit)));
    return launch_dependent<gather_rows_kernel<Unit>>(shape.launch(), stream, static_cast<const char*>(args.x),
                                                      args.x_stride_bytes, args.rows, args.row_bytes,
                                                      static_cast<char*>(args.out));
  });
}

cudaError_t interleave_ranks(const void* in, int64_t world, int64_t num_rows, int64_t local_bytes, void* out,
                             cudaStream_t stream) {
  if (world == 0 || num_rows == 0 || local_bytes == 0) return cudaSuccess;
  return with_unit(bits_of(in) | bits_of(out) | static_cast<uint64_t>(local_bytes), [&](auto zero) {
    using Unit = decltype(zero);
    const RowGrid shape(num_rows * world, local_bytes / static_cast<int64_t>(sizeof(Unit)));
    return launch_dependent<interleave_ranks_kernel<Unit>>(shape.launch(), stream, static_cast<const char*>(in), world,
                                                           num_rows, local_bytes, static_cast<char*>(out));
  });
}

cudaError_t sum_ranks(Element element, const void* in, int64_t world, int64_t count, void* out, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  return with_element(element, [&](auto zero) {
    using T = decltype(zero);
    return launch_dependent<sum_ranks_kernel<T>>({blocks_for(count), kThreads}, stream, static_cast<const T*>(in),
                                                 world, count, static_cast<T*>(out));
  });
}

cudaError_t convert(Element from, const void* in, Element to, void* out, int64_t count, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  return with_element(from, [&](auto from_zero) {
    return with_element(to, [&](auto to_zero) {
      using From = decltype(from_zero);
      using To = decltype(to_zero);
      const auto* source = static_cast<const From*>(in);
      auto* destination = static_cast<To*>(out);
      if constexpr (std::is_same_v<From, To>) {
        const size_t bytes = static_cast<size_t>(count) * sizeof(To);
        (void)cudaMemcpyAsync(destination, source, bytes, cudaMemcpyDeviceToDevice, stream);
      } else if (aligned_to_packs({in, out})) {
        const unsigned blocks = blocks_for((count + kRun - 1) / kRun);
        convert_kernel<kRun><<<blocks, kThreads, 0, stream>>>(source, destination, count);
      } else {
        convert_kernel<1><<<blocks_for(count), kThreads, 0, stream>>>(source, destination, count);
      }
      return cudaGetLastError();
    });
  });
}

cudaError_t fill_random(const RandomBlock& block, Element rounded_to, Element element, void* out, cudaStream_t stream) {
  if (block.rows == 0 || block.cols == 0) return cudaSuccess;
  const unsigned blocks = blocks_for((block.rows * block.cols + kRun - 1) / kRun);
  return with_element(rounded_to, [&](auto rounded_zero) {
    return with_element(element, [&](auto zero) {
      using T = decltype(zero);
      fill_random_kernel<decltype(rounded_zero), T>
          <<<blocks, kThreads, 0, stream>>>(block, aligned_to_packs({out}), static_cast<T*>(out));
      return cudaGetLastError();
    });
  });
}

}  // namespace optserve::kernels
