// Each multiplication is an mma.m16n8k16 of up to 16 rows of x with an octet of W. A block has some octets of its own
// and takes up to kOctets of them at a time; its warps share the inputs, unit by unit. A warp streams its units, and
// the columns of x that belong to them, through a ring in shared memory that no other warp reads, so the ring needs no
// barrier of the block.
//
// On Hopper the ring is deep. Its first units are requested before the previous kernel has ended, since weights do not
// depend on that kernel, and there are enough of them to keep memory busy until it has. A block then has a
// multiprocessor to itself: if previous kernels free some multiprocessors sooner than others, two blocks would
// otherwise share one and leave another without work. Units are fetched by bulk copies, which complete independently of
// each other. Copies by threads (cp.async), which x and other GPUs need, complete only in the order in which they were
// issued.
#include <algorithm>

#include "kernels/dependent_launch.cuh"
#include "kernels/element_ops.cuh"
#include "kernels/hopper_ptx.cuh"
#include "kernels/quantised_linear.h"
#include "kernels/quantised_values.cuh"

namespace optserve::kernels {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kOctets = 4;               // of one pass
constexpr int kTile = kOctets * kOctet;  // outputs of a pass
constexpr int kScaleBytes = kTile * 4;   // of a unit of each octet
constexpr int kPieceInputs = 8;          // of x in 16 bytes

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr bool kHasBulkCopies = false;
#else
constexpr bool kHasBulkCopies = true;
#endif

// The number of units in a warp's ring. A deep ring takes 170 to 212 KiB per block, another at most 96 KiB, which every
// multiprocessor has; only int4 with 16 rows needs more.
template <WeightFormat kFormat, int kRows, bool kDeep>
inline constexpr int kDepth = kDeep ? (kFormat == WeightFormat::kInt4 ? (kRows == 16  ? 4
                                                                         : kRows == 8 ? 5
                                                                                      : 8)
                                                                      : (kRows == 16  ? 5
                                                                         : kRows == 8 ? 7
                                                                                      : 10))
                                    : (kRows == 2 ? 4 : 2);

// A slot of a ring: the units of kOctets octets, their scales (int4), then the rows of x.
template <WeightFormat kFormat, int kRows, bool kDeep>
struct Layout {
  static constexpr int kInputs = static_cast<int>(unit_inputs(kFormat));
  static constexpr int kWeightBytes = kOctets * static_cast<int>(kUnitBytes);
  static constexpr bool kGrouped = kFormat == WeightFormat::kInt4;
  static constexpr int kScalesAt = kWeightBytes;
  static constexpr int kXAt = kScalesAt + (kGrouped ? kScaleBytes : 0);
  static constexpr int kRowBytes = 2 * kInputs;
  static constexpr int kSlotBytes = kXAt + kRows * kRowBytes;
  static constexpr int kRingBytes = kDepth<kFormat, kRows, kDeep> * kSlotBytes;
  static constexpr int kPartialBytes = kWarps * kRows * kTile * 4;
  static constexpr int kBarriersAt = kWarps * kRingBytes + kPartialBytes;
  static constexpr int kBytes = kBarriersAt + (kDeep ? kWarps * kDepth<kFormat, kRows, kDeep> * 8 : 0);
};

// Copies 16 bytes to shared memory if `wanted`. Unless `inside`, it writes zeros and does not access `from`. It has no
// branches, since they would keep the compiler from interleaving it with the code that follows.
__device__ __forceinline__ void copy_16(uint32_t to, const void* from, bool wanted, bool inside = true) {
  asm volatile(
      "{\n.reg .pred wanted;\nsetp.ne.b32 wanted, %3, 0;\n"
      "@wanted cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n}" ::"r"(to),
      "l"(__cvta_generic_to_global(from)), "r"(inside ? 16 : 0), "r"(static_cast<int>(wanted))
      : "memory");
}
__device__ __forceinline__ void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kLeft>
__device__ __forceinline__ void await_groups() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

__device__ __forceinline__ void read_16(uint32_t from, uint32_t (&words)[4]) {
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(from)
               : "memory");
}
__device__ __forceinline__ float2 read_scales(uint32_t from) {
  float2 scales;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(scales.x), "=f"(scales.y) : "r"(from) : "memory");
  return scales;
}
// Reads four 8 x 8 matrices; lane l passes the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void read_matrices(uint32_t from, uint32_t (&parts)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
               : "r"(from)
               : "memory");
}

template <class T>
__device__ __forceinline__ void multiply(float (&sum)[4], const uint32_t (&x)[4], const StepPairs& w) {
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(w.low), "r"(w.high));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(w.low), "r"(w.high));
  }
}

// The octets of one block, cut into passes of about equal size.
struct Share {
  int begin, count, passes;

  __device__ __forceinline__ explicit Share(int octets)
      : begin(static_cast<int>(static_cast<int64_t>(octets) * blockIdx.x / gridDim.x)),
        count(static_cast<int>(static_cast<int64_t>(octets) * (blockIdx.x + 1) / gridDim.x) - begin),
        passes((count + kOctets - 1) / kOctets) {}
  __device__ __forceinline__ int pass_begin(int pass) const { return begin + count * pass / passes; }
};

// The units of one warp: warp, warp + kWarps, ... of its block's octets, pass after pass.
template <class T, WeightFormat kFormat, int kRows, bool kDeep>
class Ring {
 public:
  using L = Layout<kFormat, kRows, kDeep>;
  static constexpr int kSlots = kDepth<kFormat, kRows, kDeep>;

  __device__ __forceinline__ Ring(const QuantisedLinearArgs& args, const Share& share, uint32_t shared)
      : args_(args),
        share_(share),
        units_(static_cast<int>(units_of(kFormat, args.in))),
        begin_(shared + threadIdx.x / 32 * L::kRingBytes),
        slot_(begin_),
        barriers_(shared + L::kBarriersAt + threadIdx.x / 32 * kSlots * 8) {
    begin_pass();
    if constexpr (kDeep) {
      if (lane_ < kSlots) init_barrier(barriers_ + lane_ * 8, 1);
      fence_barriers();
      __syncwarp();
    }
  }

  // Fills the ring; the kernel before this one may still write x until wait_for_previous().
  __device__ __forceinline__ void start() {
    for (int i = 0; i < kSlots; ++i, advance()) ask_weights(begin_ + i * L::kSlotBytes, barriers_ + i * 8);
    wait_for_previous();
    pass_ = 0;
    begin_pass();
    for (int i = 0; i < kSlots; ++i, advance()) {
      ask_x(begin_ + i * L::kSlotBytes);
      end_group();
    }
  }

  __device__ __forceinline__ int units_of_pass() const { return (units_ - warp_ + kWarps - 1) / kWarps; }

  // Adds the products of the oldest unit to `sums` and requests the next unit in its place. Octets beyond those of the
  // pass are multiplied too, whatever is there: their sums are not read, and this avoids a branch.
  __device__ __forceinline__ void multiply_unit(float (&sums)[kOctets][4]) {
    await_groups<kSlots - 1>();
    if constexpr (kDeep) await(barrier(), parity_);
    __syncwarp();
    uint32_t words[kOctets][4];
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
      read_16(slot_ + i * static_cast<uint32_t>(kUnitBytes) + lane_ * 16, words[i]);
    }
    if constexpr (L::kGrouped) {
      float group[kOctets][4] = {};
      multiply_steps<0>(words, group);
#pragma unroll
      for (int i = 0; i < kOctets; ++i) {
        const float2 scales = read_scales(slot_ + L::kScalesAt + i * 32 + lane_ % 4 * 8);
        sums[i][0] += group[i][0] * scales.x, sums[i][1] += group[i][1] * scales.y;
        sums[i][2] += group[i][2] * scales.x, sums[i][3] += group[i][3] * scales.y;
      }
    } else {
      multiply_steps<0>(words, sums);
    }
    __syncwarp();  // all lanes have read the slot
    ask_weights(slot_, barrier());
    ask_x(slot_);
    end_group();
    advance();
    slot_ += L::kSlotBytes;
    if (++index_ < kSlots) return;
    slot_ = begin_, index_ = 0, parity_ ^= 1;
  }

 private:
  static constexpr int kPlaces = kDeep ? 1 : kOctets;
  static constexpr int kPieces = L::kInputs / kPieceInputs;
  static constexpr int kCopies = (kRows * kPieces + 31) / 32;  // of x, by one lane
  static constexpr int kCopyRows = 32 / kPieces;               // between two of them

  __device__ __forceinline__ uint32_t barrier() const { return barriers_ + index_ * 8; }

  // Finds the first unit of the pass to request next. After the last pass there are no octets left to request. A lane
  // issues the bulk copy of one octet, or, of copies by threads, a part of the copies of every octet.
  __device__ __forceinline__ void begin_pass() {
    unit_ = warp_;
    const int first = pass_ < share_.passes ? share_.pass_begin(pass_) : 0;
    octets_ = pass_ < share_.passes && unit_ < units_ ? share_.pass_begin(pass_ + 1) - first : 0;
#pragma unroll
    for (int i = 0; i < kPlaces; ++i) {
      at_[i] = static_cast<uint32_t>(unit_index(first + (kDeep ? lane_ : i), unit_, units_));
    }
    if constexpr (L::kGrouped && !kDeep) {
      scales_at_ = static_cast<uint32_t>(unit_index(first + lane_ / 2, unit_, units_));
    }
  }

  __device__ __forceinline__ void advance() {
    unit_ += kWarps;
    if (unit_ >= units_) {
      ++pass_;
      begin_pass();
      return;
    }
#pragma unroll
    for (int i = 0; i < kPlaces; ++i) at_[i] += kWarps * kBandOctets;
    if constexpr (L::kGrouped && !kDeep) scales_at_ += kWarps * kBandOctets;
  }

  __device__ __forceinline__ void ask_weights(uint32_t slot, uint32_t barrier) const {
    if constexpr (kDeep) {
      constexpr uint32_t kUnit = static_cast<uint32_t>(kUnitBytes), kScales = L::kGrouped ? kOctet * 4 : 0;
      if (lane_ == 0 && octets_ > 0) arrive_expecting(barrier, static_cast<uint32_t>(octets_) * (kUnit + kScales));
      if (static_cast<int>(lane_) >= octets_) return;
      copy_bulk(slot + lane_ * kUnit, static_cast<const char*>(args_.values) + int64_t{at_[0]} * kUnit, kUnit, barrier);
      if constexpr (L::kGrouped) {
        copy_bulk(slot + L::kScalesAt + lane_ * kScales, args_.scales + int64_t{at_[0]} * kOctet, kScales, barrier);
      }
    } else {
      const auto* values = static_cast<const char*>(args_.values) + lane_ * 16;
#pragma unroll
      for (int i = 0; i < kOctets; ++i) {
        copy_16(slot + i * static_cast<uint32_t>(kUnitBytes) + lane_ * 16, values + int64_t{at_[i]} * kUnitBytes,
                i < octets_);
      }
      if constexpr (L::kGrouped) {
        copy_16(slot + L::kScalesAt + lane_ * 16, args_.scales + int64_t{scales_at_} * kOctet + lane_ % 2 * 4,
                static_cast<int>(lane_ / 2) < octets_);
      }
    }
  }

  // Piece p of row r of x goes to p ^ (r % 8), so that the same piece of eight rows lies in eight different banks.
  __device__ __forceinline__ void ask_x(uint32_t slot) const {
    const int piece = static_cast<int>(lane_) % kPieces, first_row = static_cast<int>(lane_) / kPieces;
    const int at = unit_ * L::kInputs + piece * kPieceInputs;
    const bool inside = at < args_.in;
    const T* x = static_cast<const T*>(args_.x) + (inside ? at : 0);
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int row = first_row + i * kCopyRows;
      copy_16(slot + L::kXAt + row * L::kRowBytes + ((piece ^ (row % 8)) * 16), x + row * args_.x_stride,
              octets_ > 0 && row < args_.rows && row < kRows, inside);
    }
  }

  // Multiplies steps kStep and kStep + 1 of 16 inputs, and those after them.
  template <int kStep>
  __device__ __forceinline__ void multiply_steps(const uint32_t (&words)[kOctets][4], float (&sums)[kOctets][4]) const {
    uint32_t x[2][4];
    read_x<kStep>(x);
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
      multiply<T>(sums[i], x[0], step_of<T, kFormat, kStep>(words[i]));
    }
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
      multiply<T>(sums[i], x[1], step_of<T, kFormat, kStep + 1>(words[i]));
    }
    if constexpr (kStep + 2 < kUnitSteps<kFormat>) multiply_steps<kStep + 2>(words, sums);
  }

  // Loads the operands of two steps. Rows that do not exist are copies of the last row; their sums are not read.
  template <int kStep>
  __device__ __forceinline__ void read_x(uint32_t (&x)[2][4]) const {
    const uint32_t matrix = lane_ / 8;
    const auto address = [&](uint32_t wanted, uint32_t piece) {
      const uint32_t row = min(wanted, static_cast<uint32_t>(args_.rows) - 1);
      return slot_ + L::kXAt + row * L::kRowBytes + ((piece ^ (row % 8)) * 16);
    };
    if constexpr (kRows > 8) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        read_matrices(address(lane_ % 8 + matrix % 2 * 8, 2 * (kStep + i) + matrix / 2), x[i]);
      }
    } else {
      uint32_t parts[4];
      read_matrices(address(lane_ % 8, 2 * kStep + matrix), parts);
      x[0][0] = parts[0], x[0][2] = parts[1], x[1][0] = parts[2], x[1][2] = parts[3];
      x[0][1] = x[0][3] = x[1][1] = x[1][3] = 0;
    }
  }

  const QuantisedLinearArgs& args_;
  const Share& share_;
  int units_;
  int warp_ = static_cast<int>(threadIdx.x / 32);
  uint32_t lane_ = threadIdx.x % 32;
  uint32_t begin_;                   // in shared memory
  uint32_t slot_;                    // of the oldest unit
  uint32_t barriers_;                // of the slots; they count the bytes of units that arrive
  uint32_t index_ = 0, parity_ = 0;  // of the oldest unit's slot and barrier
  // The unit to request next.
  int pass_ = 0;
  int unit_ = 0;
  int octets_ = 0;
  uint32_t at_[kPlaces];  // places of its units
  uint32_t scales_at_ = 0;
};

// The cells [row, output] of a pass that a thread finishes. Scales and biases are requested before the products begin.
template <class T, WeightFormat kFormat, int kRows>
struct Cells {
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

template <class T, WeightFormat kFormat, int kRows, bool kDeep>
__device__ __forceinline__ void multiply_share(const QuantisedLinearArgs& args) {
  using L = Layout<kFormat, kRows, kDeep>;
  extern __shared__ __align__(16) char shared[];
  allow_next();
  const Share share(static_cast<int>(octets_of(args.out)));
  Ring<T, kFormat, kRows, kDeep> ring(args, share, static_cast<uint32_t>(__cvta_generic_to_shared(shared)));
  ring.start();
  float* partial = reinterpret_cast<float*>(shared + kWarps * L::kRingBytes);
  const int warp = static_cast<int>(threadIdx.x / 32), row = static_cast<int>(threadIdx.x % 32 / 4);
  const int column = static_cast<int>(threadIdx.x % 4) * 2;
  const int units = ring.units_of_pass();
  for (int pass = 0; pass < share.passes; ++pass) {
    const int first = share.pass_begin(pass), octets = share.pass_begin(pass + 1) - first;
    const Cells<T, kFormat, kRows> cells(args, first, octets);
    float sums[kOctets][4] = {};
    for (int i = 0; i < units; ++i) ring.multiply_unit(sums);
    if (pass > 0) __syncthreads();  // the sums of the previous pass have been read
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
      float* own = partial + (warp * kRows + row) * kTile + i * kOctet + column;
      if (row < args.rows && row < kRows) *reinterpret_cast<float2*>(own) = {sums[i][0], sums[i][1]};
      if (kRows > 8 && row + 8 < args.rows) {
        *reinterpret_cast<float2*>(own + 8 * kTile) = {sums[i][2], sums[i][3]};
      }
    }
    __syncthreads();
    cells.finish(args, partial);
  }
  await_groups<0>();
}

template <class T, WeightFormat kFormat, int kRows, bool kDeep>
__global__ void __launch_bounds__(kThreads, 2) quantised_kernel(const QuantisedLinearArgs args) {
  if constexpr (kHasBulkCopies || !kDeep) multiply_share<T, kFormat, kRows, kDeep>(args);
}

template <class T, WeightFormat kFormat, int kRows, bool kDeep>
cudaError_t launch(const QuantisedLinearArgs& args, const DeviceLimits& device, cudaStream_t stream) {
  constexpr auto kKernel = quantised_kernel<T, kFormat, kRows, kDeep>;
  constexpr int kBytes = Layout<kFormat, kRows, kDeep>::kBytes;
  const cudaError_t error = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(octets_of(args.out), device.multiprocessors));
  return launch_dependent<kKernel>({dim3(blocks), dim3(kThreads), kBytes}, stream, args);
}

template <class T, WeightFormat kFormat, int kRows>
cudaError_t launch_deepest(const QuantisedLinearArgs& args, const DeviceLimits& device, cudaStream_t stream) {
  if (device.compute_capability >= 90 && Layout<kFormat, kRows, true>::kBytes <= device.shared_bytes_max) {
    return launch<T, kFormat, kRows, true>(args, device, stream);
  }
  return launch<T, kFormat, kRows, false>(args, device, stream);
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
  const int needed = with_shape(args.format, args.rows,
                                [](auto format, auto rows) { return Layout<format.value, rows.value, false>::kBytes; });
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
