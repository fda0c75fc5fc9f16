// Every multiplication is an mma.m16n8k16 of x (16 rows, of which the upper 8 are zero) with eight rows of W, so that 1
// to 8 rows cost the same. W is read in the order in which it is stored: since permuting k in both operands does not
// change the product, lane t of a quad takes k = 8 t .. 8 t + 7 of 32 elements, one 16-byte access, as its parts of two
// fragments. A warp streams its columns through a ring in shared memory, from which every lane reads back only what it
// copied itself. The ring therefore needs no barrier, and unlike registers it stays full whatever order the compiler
// gives to loads. Its weights are requested before the previous kernel has ended, since they do not depend on it.
#include <algorithm>

#include "kernels/dependent_launch.cuh"
#include "kernels/element_ops.cuh"
#include "kernels/skinny_linear.h"

namespace optserve::kernels {
namespace {

constexpr int kWarps = 16;  // per block; they share the columns of its outputs
constexpr int kThreads = 32 * kWarps;
constexpr int kOctet = 8;                // outputs of one mma, and elements of a 16-byte access
constexpr int kChunk = 32;               // columns that a warp takes at once
constexpr int kRound = kWarps * kChunk;  // columns that a block takes at once
constexpr int kWeightBytes = 512;        // of an octet in a chunk
constexpr int kRowBytes = 2 * kChunk;    // of a row of x in a chunk
static_assert(kSkinnyRowsMax == kOctet);

// The chunks of a warp's ring: 64 KiB of W in flight per multiprocessor, twice what hides the latency of HBM, and the
// chunk that is being multiplied.
template <int kOctets>
inline constexpr int kDepth = 8 / kOctets + 1;

// More than half of a multiprocessor's shared memory: if the previous kernel frees some multiprocessors sooner than
// others, two blocks would otherwise share one and leave another without work.
constexpr int kSharedBytesMin = 116 << 10;

// The shared memory of a block: the rings of its warps, then the sums of two tiles.
template <int kOctets>
struct Layout {
  int chunk_bytes, ring_bytes, tile_cells, bytes;

  __host__ __device__ explicit Layout(int64_t rows)
      : chunk_bytes(kOctets * kWeightBytes + static_cast<int>(rows) * kRowBytes),
        ring_bytes(kDepth<kOctets> * chunk_bytes),
        tile_cells(static_cast<int>(rows) * kOctets * kOctet),
        bytes(kWarps * ring_bytes + 2 * kWarps * tile_cells * static_cast<int>(sizeof(float))) {}

  int alone_bytes() const { return bytes > kSharedBytesMin ? bytes : kSharedBytesMin; }
};

// Copies 16 bytes to shared memory; unless `inside`, it writes zeros and does not access `from`. x goes through L1
// since later tiles read it again; W does not.
__device__ __forceinline__ void copy_x(uint32_t to, const void* from, bool inside) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
               "r"(inside ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void copy_weight(uint32_t to, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
               "r"(inside ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void end_chunk() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most kLeft of the chunks that this thread requested are still in flight.
template <int kLeft>
__device__ __forceinline__ void await_chunks() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

__device__ __forceinline__ uint4 read_shared(uint32_t from) {
  uint4 raw;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
               : "r"(from)
               : "memory");
  return raw;
}

// sum[0], sum[1] += row lane / 4 of x times outputs 2 (lane % 4) and 2 (lane % 4) + 1; sum[2], sum[3] stay zero.
template <class T>
__device__ __forceinline__ void multiply(float (&sum)[4], uint32_t x0, uint32_t x1, uint32_t w0, uint32_t w1) {
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(x0), "r"(0), "r"(x1), "r"(0), "r"(w0), "r"(w1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(x0), "r"(0), "r"(x1), "r"(0), "r"(w0), "r"(w1));
  }
}

// What a lane is responsible for: row `row` of x and of each octet of W, and elements 8 quad .. 8 quad + 7 of a chunk.
struct Lane {
  int warp = static_cast<int>(threadIdx.x / 32);
  int lane = static_cast<int>(threadIdx.x % 32);
  int row = lane / 4;
  int quad = lane % 4;
};

// The chunks of one warp: warp, warp + kWarps, ... of the columns, of the tiles of its block, one tile after another.
template <class T, int kOctets>
class Ring {
 public:
  __device__ __forceinline__ Ring(const SkinnyLinearArgs& args, const Layout<kOctets>& layout, uint32_t shared)
      : in_(static_cast<int>(args.in)),
        left_(args.out - blockIdx.x * kTile),
        has_x_(at_.row < args.rows),
        chunk_bytes_(static_cast<uint32_t>(layout.chunk_bytes)),
        begin_(shared + static_cast<uint32_t>(at_.warp * layout.ring_bytes + at_.lane * 16)),
        slot_(begin_),
        x_(static_cast<const T*>(args.x) + (has_x_ ? at_.row * args.x_stride : 0) + at_.quad * kOctet),
        weight_(static_cast<const T*>(args.weight) + (blockIdx.x * kTile + at_.row) * args.in + at_.quad * kOctet) {}

  // Fills the ring; the kernel before this one may still write x until wait_for_previous(). All weights belong to the
  // first group of copies: there is time for them while that kernel ends.
  __device__ __forceinline__ void start() {
    Ring x = *this;
#pragma unroll
    for (int i = 0; i < kDepth<kOctets>; ++i, advance()) ask_weights();
    wait_for_previous();
#pragma unroll
    for (int i = 0; i < kDepth<kOctets>; ++i, x.advance()) {
      x.ask_x();
      end_chunk();
    }
  }

  // Multiplies the oldest chunk and requests the next one in its place.
  __device__ __forceinline__ void multiply_chunk(float (&sums)[kOctets][4]) {
    await_chunks<kDepth<kOctets> - 1>();
    const uint4 x = has_x_ ? read_shared(slot_ + kOctets * kWeightBytes) : uint4{};
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
      const uint4 weight = read_shared(slot_ + i * kWeightBytes);
      multiply<T>(sums[i], x.x, x.y, weight.x, weight.y);
      multiply<T>(sums[i], x.z, x.w, weight.z, weight.w);
    }
    ask_x();
    ask_weights();
    end_chunk();
    advance();
  }

 private:
  static constexpr int64_t kTile = kOctets * kOctet;

  // After the last tile nothing is inside, and empty groups keep the count right.
  __device__ __forceinline__ bool inside() const { return column_ + at_.quad * kOctet < in_; }
  __device__ __forceinline__ void ask_x() const {
    if (has_x_) copy_x(slot_ + kOctets * kWeightBytes, x_ + column_, inside() && left_ > 0);
  }
  __device__ __forceinline__ void ask_weights() const {
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
      const T* from = weight_ + column_ + static_cast<int64_t>(in_) * (i * kOctet);
      copy_weight(slot_ + i * kWeightBytes, from, inside() && left_ > i * kOctet + at_.row);
    }
  }
  __device__ __forceinline__ void advance() {
    slot_ += chunk_bytes_;
    if (slot_ == begin_ + kDepth<kOctets> * chunk_bytes_) slot_ = begin_;
    column_ += kRound;
    if (column_ < in_) return;
    column_ = at_.warp * kChunk;
    left_ -= gridDim.x * kTile;
    weight_ += gridDim.x * kTile * in_;
  }

  Lane at_;
  int in_;
  int64_t left_;  // outputs from the first of the next requested chunk's tile to the last of all
  bool has_x_;
  uint32_t chunk_bytes_;
  uint32_t begin_;  // in shared memory
  uint32_t slot_;   // of the oldest chunk, and thereby of the next one
  const T* x_;
  const T* weight_;                 // this lane's row of the first octet of that tile
  int column_ = at_.warp * kChunk;  // where that chunk begins
};

// The cell [row, output] of a tile that a thread finishes. Its bias is requested before the products begin.
template <class T, int kOctets>
struct Cell {
  static constexpr int kTile = kOctets * kOctet;
  int64_t output;
  int row = static_cast<int>(threadIdx.x) / kTile;
  T bias{};

  __device__ __forceinline__ Cell(const SkinnyLinearArgs& args, int64_t tile)
      : output(tile * kTile + threadIdx.x % kTile) {
    if (args.bias != nullptr && inside(args)) bias = static_cast<const T*>(args.bias)[output];
  }

  __device__ __forceinline__ bool inside(const SkinnyLinearArgs& args) const {
    return row < args.rows && output < args.out;
  }

  // Adds the sums of the warps in their order. `partial` is [kWarps][rows][kTile], with `cells` cells per warp.
  __device__ __forceinline__ void finish(const SkinnyLinearArgs& args, const float* partial, int cells) const {
    if (!inside(args)) return;
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) sum += partial[warp * cells + threadIdx.x];
    if (args.bias != nullptr) sum += to_float(bias);
    if (args.relu && sum < 0) sum = 0;
    const int64_t at = row * args.y_stride + output;
    if (args.out_f32) {
      static_cast<float*>(args.y)[at] = sum;
    } else {
      static_cast<T*>(args.y)[at] = from_float<T>(sum);
    }
  }
};

// A block takes the tiles of 8 kOctets outputs blockIdx.x, blockIdx.x + gridDim.x, ... Two tiles in turn have sums of
// their own: a thread that passes the barrier of a tile has read the sums of the tile before. The registers of a
// multiprocessor have room for two blocks, so that the next kernel of this kind can become resident early.
template <class T, int kOctets>
__global__ void __launch_bounds__(kThreads, 2) skinny_kernel(const SkinnyLinearArgs args) {
  extern __shared__ __align__(16) char shared[];
  allow_next();
  const Lane at;
  const Layout<kOctets> layout(args.rows);
  Ring<T, kOctets> ring(args, layout, static_cast<uint32_t>(__cvta_generic_to_shared(shared)));
  ring.start();
  float* partial = reinterpret_cast<float*>(shared + kWarps * layout.ring_bytes);
  constexpr int kTile = kOctets * kOctet;
  const int64_t tiles = (args.out + kTile - 1) / kTile;
  int buffer = 0;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const Cell<T, kOctets> cell(args, tile);
    float sums[kOctets][4] = {};
    for (int column = at.warp * kChunk; column < args.in; column += kRound) ring.multiply_chunk(sums);
    float* sum_of_tile = partial + buffer * kWarps * layout.tile_cells;
    float* own = sum_of_tile + at.warp * layout.tile_cells + at.row * kTile + at.quad * 2;
    if (at.row < args.rows) {
#pragma unroll
      for (int i = 0; i < kOctets; ++i) *reinterpret_cast<float2*>(own + i * kOctet) = {sums[i][0], sums[i][1]};
    }
    __syncthreads();
    cell.finish(args, sum_of_tile, layout.tile_cells);
    buffer ^= 1;
  }
  await_chunks<0>();
}

template <class T, int kOctets>
cudaError_t launch(const SkinnyLinearArgs& args, const DeviceLimits& device, cudaStream_t stream) {
  constexpr int kTile = kOctets * kOctet;
  constexpr auto kKernel = skinny_kernel<T, kOctets>;
  const Layout<kOctets> layout(args.rows);
  const int bytes_max = std::min(Layout<kOctets>(kSkinnyRowsMax).alone_bytes(), device.shared_bytes_max);
  const cudaError_t error = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes_max);
  if (error != cudaSuccess) return error;
  const int64_t blocks = std::min<int64_t>((args.out + kTile - 1) / kTile, device.multiprocessors);
  const LaunchShape shape{dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
                          static_cast<size_t>(layout.alone_bytes())};
  return launch_dependent<kKernel>(shape, stream, args);
}

// What the busiest multiprocessor reads if tiles have so many octets, in quarters of a row of W. A tile also reads x,
// from L1 or L2, and has a barrier.
int64_t cost_of(const SkinnyLinearArgs& args, int multiprocessors, int octets) {
  const int64_t tiles = (args.out + octets * kOctet - 1) / (octets * kOctet);
  return (tiles + multiprocessors - 1) / multiprocessors * (4 * octets * kOctet + args.rows + 4);
}

int best_octets(const SkinnyLinearArgs& args, int multiprocessors) {
  const int64_t one = cost_of(args, multiprocessors, 1);
  const int64_t two = cost_of(args, multiprocessors, 2);
  const int64_t four = cost_of(args, multiprocessors, 4);
  if (four <= two && four <= one) return 4;
  return two <= one ? 2 : 1;
}

template <class T>
cudaError_t launch_best(const SkinnyLinearArgs& args, const DeviceLimits& device, cudaStream_t stream) {
  const int octets = best_octets(args, device.multiprocessors);
  if (octets == 4) return launch<T, 4>(args, device, stream);
  return octets == 2 ? launch<T, 2>(args, device, stream) : launch<T, 1>(args, device, stream);
}

int shared_bytes(int octets, int64_t rows) {
  if (octets == 4) return Layout<4>(rows).alone_bytes();
  return octets == 2 ? Layout<2>(rows).alone_bytes() : Layout<1>(rows).alone_bytes();
}

}  // namespace

bool can_skinny_linear(const SkinnyLinearArgs& args, const DeviceLimits& device) {
  if (args.element != Element::kF16 && args.element != Element::kBF16) return false;
  if (args.rows > kSkinnyRowsMax || args.in > (1 << 28)) return false;  // columns are ints
  if (args.in % kOctet != 0 || (args.rows > 1 && args.x_stride % kOctet != 0)) return false;
  if (shared_bytes(best_octets(args, device.multiprocessors), args.rows) > device.shared_bytes_max) return false;
  return aligned_to_packs({args.x, args.weight});
}

cudaError_t skinny_linear(const SkinnyLinearArgs& args, const DeviceLimits& device, cudaStream_t stream) {
  if (!can_skinny_linear(args, device)) return cudaErrorInvalidValue;
  if (args.rows == 0 || args.out == 0) return cudaSuccess;
  if (args.element == Element::kF16) return launch_best<__half>(args, device, stream);
  return launch_best<__nv_bfloat16>(args, device, stream);
}

}  // namespace optserve::kernels
