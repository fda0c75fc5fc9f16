// The rings through which the warps of quantised_linear.cu stream weights and x, and the multiplication of what is
// there.
//
// On Hopper the ring is deep. Its first units are requested before the previous kernel has ended, since weights do not
// depend on that kernel, and there are enough of them to keep memory busy until it has. A block then has a
// multiprocessor to itself: if previous kernels free some multiprocessors sooner than others, two blocks would
// otherwise share one and leave another without work. Units are fetched by bulk copies, which complete independently of
// each other, and one of them fetches all octets of a band (quantised.h). Copies by threads (cp.async), which x and
// other GPUs need, complete only in the order in which they were issued.
#pragma once

#include "kernels/dependent_launch.cuh"
#include "kernels/hopper_ptx.cuh"
#include "kernels/quantised_linear.h"
#include "kernels/quantised_values.cuh"

namespace optserve::kernels {

constexpr int kOctetsAtOnce = 4;  // that a warp multiplies
constexpr int kPieceInputs = 8;   // of x in 16 bytes

// The kinds of rings: of copies by threads, of bulk copies, and of bulk copies with twice as many octets in a slot,
// which is faster for blocks that have so many where there is little x beside them.
enum class Depth : uint8_t { kFlat, kDeep, kWide };

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr bool kHasBulkCopies = false;
#else
constexpr bool kHasBulkCopies = true;
#endif

// The octets of a pass, the warps of a block, and the slots in the ring of each warp. Deep rings take 155 to 219 KiB
// together, and 16 warps are what it takes to multiply at the rate of memory. Other rings take at most 96 KiB, which
// every multiprocessor has; only int4 with 16 rows needs more.
struct RingShape {
  int octets, warps, depth;
};
constexpr RingShape ring_shape(WeightFormat format, int rows, Depth depth) {
  const bool grouped = format == WeightFormat::kInt4;
  switch (depth) {
    case Depth::kFlat:
      return {4, 8, rows == 2 ? 4 : 2};
    case Depth::kDeep:
      if (rows == 16) return grouped ? RingShape{4, 8, 4} : RingShape{4, 16, 2};
      return {4, 16, rows == 2 ? 5 : grouped ? 3 : 4};
    case Depth::kWide:
      break;
  }
  return {8, rows == 8 ? 12 : 16, grouped ? 2 : 3};
}

template <WeightFormat kFormat, int kRows>
inline constexpr bool kIsWide = kRows == 2 || (kRows == 8 && kFormat == WeightFormat::kInt4);

// A slot of a ring: the units of kOctets octets, their scales (int4), then the rows of x.
template <WeightFormat kFormat, int kRows, Depth kOfRing>
struct Layout {
  static constexpr RingShape kShape = ring_shape(kFormat, kRows, kOfRing);
  static constexpr bool kDeep = kOfRing != Depth::kFlat;
  static constexpr int kOctets = kShape.octets;  // of a pass
  static constexpr int kWarps = kShape.warps;
  static constexpr int kDepth = kShape.depth;
  static constexpr int kTile = kOctets * static_cast<int>(kOctet);  // outputs of a pass
  static constexpr int kScaleBytes = kTile * 4;                     // of a unit of each octet
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kInputs = static_cast<int>(unit_inputs(kFormat));
  static constexpr int kWeightBytes = kOctets * static_cast<int>(kUnitBytes);
  static constexpr bool kGrouped = kFormat == WeightFormat::kInt4;
  static constexpr int kScalesAt = kWeightBytes;
  static constexpr int kXAt = kScalesAt + (kGrouped ? kScaleBytes : 0);
  static constexpr int kRowBytes = 2 * kInputs;
  static constexpr int kRowOctets = (kRows + 7) / 8;
  static constexpr int kSlotBytes = kXAt + kRows * kRowBytes;
  static constexpr int kRingBytes = kDepth * kSlotBytes;
  static constexpr int kPartialBytes = kWarps * kRows * kTile * 4;
  static constexpr int kBarriersAt = kWarps * kRingBytes + kPartialBytes;
  static constexpr int kBytes = kBarriersAt + (kDeep ? kWarps * kDepth * 8 : 0);
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

// Reads four 8 x 8 matrices; lane l passes the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void read_matrices(uint32_t from, uint32_t (&parts)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
               : "r"(from)
               : "memory");
}

// Adds the products of 16 outputs, of which a lane has two (`first` of an octet, `second` of the next one), with eight
// rows of x. A lane's sums are those of its two outputs with rows 2 t and 2 t + 1, where t is lane % 4.
template <class T>
__device__ __forceinline__ void multiply(float (&sum)[4], const StepPairs& first, const StepPairs& second,
                                         uint32_t x_low, uint32_t x_high) {
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(first.low), "r"(second.low), "r"(first.high), "r"(second.high), "r"(x_low), "r"(x_high));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(first.low), "r"(second.low), "r"(first.high), "r"(second.high), "r"(x_low), "r"(x_high));
  }
}

// The octets of one block, in passes of kOctets and one of the rest.
template <int kOctets>
struct Share {
  int begin, end, passes;

  __device__ __forceinline__ explicit Share(int octets)
      : begin(static_cast<int>(static_cast<int64_t>(octets) * blockIdx.x / gridDim.x)),
        end(static_cast<int>(static_cast<int64_t>(octets) * (blockIdx.x + 1) / gridDim.x)),
        passes((end - begin + kOctets - 1) / kOctets) {}
  __device__ __forceinline__ int pass_begin(int pass) const { return min(begin + pass * kOctets, end); }
};

// The units of one warp: warp, warp + L::kWarps, ... of its block's octets, pass after pass.
template <class T, WeightFormat kFormat, int kRows, Depth kOfRing>
class Ring {
 public:
  using L = Layout<kFormat, kRows, kOfRing>;
  static constexpr bool kDeep = L::kDeep;
  static constexpr int kOctets = L::kOctets;
  static constexpr int kSlots = L::kDepth;

  __device__ __forceinline__ Ring(const QuantisedLinearArgs& args, const Share<L::kOctets>& share, uint32_t shared)
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

  __device__ __forceinline__ int units_of_pass() const { return (units_ - warp_ + L::kWarps - 1) / L::kWarps; }

  // [pairs of octets][octets of rows][as multiply() has them].
  using Sums = float[kOctets / 2][L::kRowOctets][4];
  using SumsAtOnce = float[kOctetsAtOnce / 2][L::kRowOctets][4];

  // Adds the products of the oldest unit, of `octets` octets, to `sums` and requests the next unit in its place. The
  // last ones that are multiplied at once may be beyond those of the pass: their sums are not read, and this avoids
  // branches.
  __device__ __forceinline__ void multiply_unit(Sums& sums, int octets) {
    await_groups<kSlots - 1>();
    if constexpr (kDeep) await(barrier(), parity_);
    __syncwarp();
    multiply_octets<0>(sums, octets);
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

  // Multiplies kOctetsAtOnce octets from kFirst on, and those after them.
  template <int kFirst>
  __device__ __forceinline__ void multiply_octets(Sums& sums, int octets) const {
    uint32_t words[kOctetsAtOnce][4];
#pragma unroll
    for (int i = 0; i < kOctetsAtOnce; ++i) {
      read_words(slot_ + (kFirst + i) * static_cast<uint32_t>(kUnitBytes) + lane_ * 16, words[i]);
    }
    auto& own = reinterpret_cast<SumsAtOnce&>(sums[kFirst / 2]);
    if constexpr (L::kGrouped) {
      SumsAtOnce group = {};
      multiply_steps<0>(words, group);
#pragma unroll
      for (int i = 0; i < kOctetsAtOnce / 2; ++i) {
        const uint32_t scales =
            slot_ + L::kScalesAt + ((kFirst + i * 2) * static_cast<uint32_t>(kOctet) + lane_ / 4) * 4;
        const float first = read_float(scales), second = read_float(scales + kOctet * 4);
#pragma unroll
        for (int rows = 0; rows < L::kRowOctets; ++rows) {
          own[i][rows][0] += group[i][rows][0] * first, own[i][rows][1] += group[i][rows][1] * first;
          own[i][rows][2] += group[i][rows][2] * second, own[i][rows][3] += group[i][rows][3] * second;
        }
      }
    } else {
      multiply_steps<0>(words, own);
    }
    if constexpr (kFirst + kOctetsAtOnce < kOctets) {
      if (octets > kFirst + kOctetsAtOnce) multiply_octets<kFirst + kOctetsAtOnce>(sums, octets);
    }
  }

  // Finds the first unit of the pass to request next. After the last pass there are no octets left to request. A lane
  // issues the bulk copy of the octets of one band (a pass has octets of at most two), or, of copies by threads, a part
  // of the copies of every octet.
  __device__ __forceinline__ void begin_pass() {
    static_assert(kOctets <= kBandOctets);
    unit_ = warp_;
    const int first = pass_ < share_.passes ? share_.pass_begin(pass_) : 0;
    octets_ = pass_ < share_.passes && unit_ < units_ ? share_.pass_begin(pass_ + 1) - first : 0;
    if constexpr (kDeep) {
      const int in_band = min(octets_, static_cast<int>(kBandOctets - first % kBandOctets));
      skipped_ = lane_ == 0 ? 0 : in_band;
      copied_ = lane_ == 0 ? in_band : lane_ == 1 ? octets_ - in_band : 0;
      at_[0] = static_cast<uint32_t>(unit_index(first + skipped_, unit_, units_));
    } else {
#pragma unroll
      for (int i = 0; i < kPlaces; ++i) at_[i] = static_cast<uint32_t>(unit_index(first + i, unit_, units_));
    }
    if constexpr (L::kGrouped && !kDeep) {
      scales_at_ = static_cast<uint32_t>(unit_index(first + lane_ / 2, unit_, units_));
    }
  }

  __device__ __forceinline__ void advance() {
    unit_ += L::kWarps;
    if (unit_ >= units_) {
      ++pass_;
      begin_pass();
      return;
    }
#pragma unroll
    for (int i = 0; i < kPlaces; ++i) at_[i] += L::kWarps * kBandOctets;
    if constexpr (L::kGrouped && !kDeep) scales_at_ += L::kWarps * kBandOctets;
  }

  __device__ __forceinline__ void ask_weights(uint32_t slot, uint32_t barrier) const {
    if constexpr (kDeep) {
      constexpr uint32_t kUnit = static_cast<uint32_t>(kUnitBytes), kScales = L::kGrouped ? kOctet * 4 : 0;
      if (lane_ == 0 && octets_ > 0) arrive_expecting(barrier, static_cast<uint32_t>(octets_) * (kUnit + kScales));
      if (copied_ == 0) return;
      copy_bulk(slot + skipped_ * kUnit, static_cast<const char*>(args_.values) + int64_t{at_[0]} * kUnit,
                copied_ * kUnit, barrier);
      if constexpr (L::kGrouped) {
        copy_bulk(slot + L::kScalesAt + skipped_ * kScales, args_.scales + int64_t{at_[0]} * kOctet, copied_ * kScales,
                  barrier);
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
  __device__ __forceinline__ void multiply_steps(const uint32_t (&words)[kOctetsAtOnce][4], SumsAtOnce& sums) const {
    uint32_t x[2][L::kRowOctets][2];
    read_x<kStep>(x);
    multiply_step<kStep>(words, x[0], sums);
    multiply_step<kStep + 1>(words, x[1], sums);
    if constexpr (kStep + 2 < kUnitSteps<kFormat>) multiply_steps<kStep + 2>(words, sums);
  }

  template <int kStep>
  __device__ __forceinline__ void multiply_step(const uint32_t (&words)[kOctetsAtOnce][4],
                                                const uint32_t (&x)[L::kRowOctets][2], SumsAtOnce& sums) const {
#pragma unroll
    for (int i = 0; i < kOctetsAtOnce / 2; ++i) {
      const StepPairs first = step_of<T, kFormat, kStep>(words[2 * i]);
      const StepPairs second = step_of<T, kFormat, kStep>(words[2 * i + 1]);
#pragma unroll
      for (int rows = 0; rows < L::kRowOctets; ++rows) {
        multiply<T>(sums[i][rows], first, second, x[rows][0], x[rows][1]);
      }
    }
  }

  // Loads the operands of two steps. Rows that do not exist are copies of the last row; their sums are not read.
  template <int kStep>
  __device__ __forceinline__ void read_x(uint32_t (&x)[2][L::kRowOctets][2]) const {
    const uint32_t matrix = lane_ / 8;
    const auto address = [&](uint32_t wanted, uint32_t piece) {
      const uint32_t row = min(wanted, static_cast<uint32_t>(args_.rows) - 1);
      return slot_ + L::kXAt + row * L::kRowBytes + ((piece ^ (row % 8)) * 16);
    };
    uint32_t parts[4];
    if constexpr (L::kRowOctets == 2) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        read_matrices(address(lane_ % 8 + matrix / 2 * 8, 2 * (kStep + i) + matrix % 2), parts);
        x[i][0][0] = parts[0], x[i][0][1] = parts[1], x[i][1][0] = parts[2], x[i][1][1] = parts[3];
      }
    } else {
      read_matrices(address(lane_ % 8, 2 * kStep + matrix), parts);
      x[0][0][0] = parts[0], x[0][0][1] = parts[1], x[1][0][0] = parts[2], x[1][0][1] = parts[3];
    }
  }

  const QuantisedLinearArgs& args_;
  const Share<L::kOctets>& share_;
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
  uint32_t at_[kPlaces];          // places of its units
  int skipped_ = 0, copied_ = 0;  // of the bulk copy of this lane: octets before it, and octets in it
  uint32_t scales_at_ = 0;
};

}  // namespace optserve::kernels
