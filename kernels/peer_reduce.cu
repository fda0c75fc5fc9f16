#include "kernels/norm_rows.cuh"
#include "kernels/peer_reduce.h"
#include "kernels/peer_words.cuh"

namespace optserve::kernels {
namespace {

constexpr int kPacksMax = 2;        // of a row for each thread; the registers hold no more
constexpr int kThreadsBound = 896;  // leaves 72 registers a thread, so that two blocks of 448 fit a multiprocessor
constexpr int kRowsAhead = 1;       // how many rows a block stores ahead of the row it waits for
constexpr int kSumThreads = 512;
constexpr int kSumBatch = 4;  // packs that a thread loads at a time
// A round costs about as much as storing kRoundBytes; what NCCL does besides storing costs as much as kLibraryBytes.
constexpr int64_t kRoundBytes = 800 << 10, kLibraryBytes = 4 << 20;

int64_t one_round_bytes(const PeerGroup& group) { return group.buffer_bytes / group.world / 16 * 16; }
int64_t two_rounds_bytes(const PeerGroup& group) { return group.buffer_bytes / 2 / group.world / 16 * 16; }

// The buffer that a collective uses in each rank's inbox.
class Buffers {
 public:
  // `part_bytes` is the size of each rank's part of a buffer.
  __device__ __forceinline__ Buffers(const PeerGroup& group, int64_t part_bytes)
      : group(group), part_bytes_(part_bytes), turn_(look_word(&group.state->turn)) {}

  // Where rank `from` leaves pack `index` for rank `to`.
  __device__ __forceinline__ char* slot(int to, int from, int64_t index) const {
    return begin(to) + from * part_bytes_ + index * 16;
  }
  // Where pack `index` of the sum over all ranks goes: into the second half of a buffer.
  __device__ __forceinline__ char* sum(int to, int64_t index) const {
    return begin(to) + group.buffer_bytes / 2 + index * 16;
  }
  __device__ __forceinline__ void pass() const { pass_turn(group, turn_); }

  const PeerGroup& group;

 private:
  __device__ __forceinline__ char* begin(int rank) const {
    return static_cast<char*>(group.inbox[rank]) + turn_ * group.buffer_bytes;
  }

  int64_t part_bytes_;
  uint32_t turn_;
};

template <int kWorld, class Body>
__device__ __forceinline__ void for_peers(const PeerGroup& group, const Body& body) {
#pragma unroll
  for (int step = 1; step < kWorld; ++step) {  // each rank begins with a different peer
    const int peer = group.rank + step < group.world ? group.rank + step : group.rank + step - group.world;
    if (step < group.world) body(peer);
  }
}

// The sum of the ranks' packs, of which `own` is this rank's.
template <class T, int kWorld>
__device__ __forceinline__ uint4 sum_packs(const PeerGroup& group, const uint4 (&parts)[kWorld], const uint4& own) {
  float sum[kPack<T>], value[kPack<T>];
  unpack<T>(group.rank == 0 ? own : parts[0], sum);
#pragma unroll
  for (int rank = 1; rank < kWorld; ++rank) {
    if (rank >= group.world) break;
    unpack<T>(group.rank == rank ? own : parts[rank], value);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) sum[i] += value[i];
  }
  return pack<T>(sum);
}

// The sum of two ranks' packs.
template <class T>
__device__ __forceinline__ uint4 sum_pair(const PeerGroup& group, const uint4& peer, const uint4& own) {
  const uint4 parts[2] = {peer, peer};
  return sum_packs<T, 2>(group, parts, own);
}

template <class T, int kWorld, class Slot>
__device__ __forceinline__ uint4 take_sum(const PeerGroup& group, const Slot& slot_of, const uint4& own,
                                          Patience& patience) {
  char* slots[kWorld];
  uint4 parts[kWorld];
#pragma unroll
  for (int rank = 0; rank < kWorld; ++rank) {
    slots[rank] = rank < group.world && rank != group.rank ? slot_of(rank) : nullptr;
  }
  take(slots, parts, group, patience);
  return sum_packs<T>(group, parts, own);
}

// Replaces the packs of a thread by their sums. `first` is the index of the row's first pack.
template <class T, int kPacks, int kWorld>
__device__ __forceinline__ void take_sums(const Buffers& buffers, int64_t first, int64_t row_packs,
                                          Packs<kPacks>& packs, Patience& patience) {
  const PeerGroup& group = buffers.group;
  if constexpr (kWorld == 2) {
    char* slots[kPacks];
    uint4 parts[kPacks];
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int64_t column = threadIdx.x + p * blockDim.x;
      slots[p] = column < row_packs ? buffers.slot(group.rank, 1 - group.rank, first + column) : nullptr;
    }
    take(slots, parts, group, patience);
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      if (slots[p] != nullptr) packs[p] = sum_pair<T>(group, parts[p], packs[p]);
    }
  } else {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int64_t column = threadIdx.x + p * blockDim.x;
      if (column >= row_packs) continue;
      const auto slot_of = [&](int rank) { return buffers.slot(group.rank, rank, first + column); };
      packs[p] = take_sum<T, kWorld>(group, slot_of, packs[p], patience);
    }
  }
}

template <int kPacks>
__device__ __forceinline__ void seal(Packs<kPacks>& packs) {
#pragma unroll
  for (int p = 0; p < kPacks; ++p) packs[p] = sealed(packs[p]);
}

// Adds a sum to one row of the residual stream and computes its norm.
template <class T, int kPacks>
class Row {
 public:
  __device__ __forceinline__ Row(const NormArgs& args, int64_t index) : args_(args), first_(index * args.width) {
    load_packs<T, kPacks>(static_cast<const T*>(args.residual) + first_, args.width, residual_);
    load_packs<T, kPacks>(static_cast<const T*>(args.bias), args.width, bias_);
  }

  __device__ __forceinline__ void finish(const Packs<kPacks>& sum) {
    Packs<kPacks> gamma, beta;
    if (args_.out != nullptr) {
      load_packs<T, kPacks>(static_cast<const T*>(args_.gamma), args_.width, gamma);
      load_packs<T, kPacks>(static_cast<const T*>(args_.beta), args_.width, beta);
    }
#pragma unroll
    for (int p = 0; p < kPacks; ++p) residual_[p] = add_pack<T>(residual_[p], sum[p], bias_[p]);
    store_packs<T, kPacks>(static_cast<T*>(args_.residual) + first_, args_.width, residual_);
    if (args_.out == nullptr) return;
    const float2 statistics = statistics_of<T, kPacks>(residual_, args_.width);
#pragma unroll
    for (int p = 0; p < kPacks; ++p) residual_[p] = norm_pack<T>(residual_[p], gamma[p], beta[p], statistics);
    store_packs<T, kPacks>(static_cast<T*>(args_.out) + first_, args_.width, residual_);
  }

 private:
  const NormArgs& args_;
  int64_t first_;
  Packs<kPacks> residual_, bias_;
};

// Stores the packs of a thread wherever `slot_of(column)` says.
template <class T, int kPacks, class Slot>
__device__ __forceinline__ void store_row(const Packs<kPacks>& packs, int64_t row_packs, const Slot& slot_of) {
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int64_t column = threadIdx.x + p * blockDim.x;
    if (column < row_packs) store_words(slot_of(column), packs[p]);
  }
}

// A block takes rows blockIdx.x, blockIdx.x + gridDim.x, ... All blocks are on the device at once, and a row waits only
// for what peers store after smaller rows, so every wait ends.
template <class T, int kPacks, int kWorld>
__global__ void __launch_bounds__(kThreadsBound)
    one_round_kernel(const __grid_constant__ PeerGroup group, int64_t part_bytes,
                     const __grid_constant__ NormArgs args) {
  allow_next();
  prefetch_vectors<T, kPacks>(args);
  wait_for_previous();
  const Buffers buffers(group, part_bytes);
  const int64_t row_packs = args.width / kPack<T>;
  Packs<kPacks> packs;
  const auto load_row = [&](int64_t row) {
    load_packs<T, kPacks>(static_cast<const T*>(args.x) + row * args.width, args.width, packs);
    seal<kPacks>(packs);
  };
  const auto store = [&](int64_t row) {
    if (row >= args.num_rows) return;
    load_row(row);
    for_peers<kWorld>(group, [&](int peer) {
      store_row<T, kPacks>(packs, row_packs,
                           [&](int64_t column) { return buffers.slot(peer, group.rank, row * row_packs + column); });
    });
  };
  for (int64_t ahead = 0; ahead < kRowsAhead; ++ahead) store(blockIdx.x + ahead * gridDim.x);
  buffers.pass();
  Patience patience;
  for (int64_t row = blockIdx.x; row < args.num_rows; row += gridDim.x) {
    Row<T, kPacks> stream(args, row);
    if (args.num_rows > gridDim.x) load_row(row);  // otherwise the registers still hold the row
    take_sums<T, kPacks, kWorld>(buffers, row * row_packs, row_packs, packs, patience);
    stream.finish(packs);
    store(row + kRowsAhead * gridDim.x);
  }
}

// Row r is added by rank r % world.
template <class T, int kPacks, int kWorld>
__global__ void __launch_bounds__(kThreadsBound)
    two_rounds_kernel(const __grid_constant__ PeerGroup group, int64_t part_bytes,
                      const __grid_constant__ NormArgs args) {
  allow_next();
  prefetch_vectors<T, kPacks>(args);
  wait_for_previous();
  const Buffers buffers(group, part_bytes);
  const int64_t row_packs = args.width / kPack<T>;
  const T* x = static_cast<const T*>(args.x);
  Packs<kPacks> packs;
  for (int64_t row = blockIdx.x; row < args.num_rows; row += gridDim.x) {
    const int owner = static_cast<int>(row % group.world);
    if (owner == group.rank) continue;
    load_packs<T, kPacks>(x + row * args.width, args.width, packs);
    seal<kPacks>(packs);
    store_row<T, kPacks>(packs, row_packs, [&](int64_t column) {
      return buffers.slot(owner, group.rank, row / group.world * row_packs + column);
    });
  }
  buffers.pass();
  Patience patience;
  for (int64_t row = blockIdx.x; row < args.num_rows; row += gridDim.x) {
    if (row % group.world != group.rank) continue;
    Row<T, kPacks> stream(args, row);
    load_packs<T, kPacks>(x + row * args.width, args.width, packs);
    seal<kPacks>(packs);
    take_sums<T, kPacks, kWorld>(buffers, row / group.world * row_packs, row_packs, packs, patience);
    seal<kPacks>(packs);
    for_peers<kWorld>(group, [&](int peer) {
      store_row<T, kPacks>(packs, row_packs,
                           [&](int64_t column) { return buffers.sum(peer, row * row_packs + column); });
    });
    stream.finish(packs);
  }
  for (int64_t row = blockIdx.x; row < args.num_rows; row += gridDim.x) {
    if (row % group.world == group.rank) continue;
    Row<T, kPacks> stream(args, row);
    char* slots[kPacks];
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int64_t column = threadIdx.x + p * blockDim.x;
      slots[p] = column < row_packs ? buffers.sum(group.rank, row * row_packs + column) : nullptr;
      packs[p] = uint4{};
    }
    take(slots, packs, group, patience);
    stream.finish(packs);
  }
}

// Pack `index` of x[count]; elements beyond the end are zero and are not stored.
template <class T>
__device__ __forceinline__ uint4 load_pack(const T* x, int64_t count, int64_t index) {
  const T* from = x + index * kPack<T>;
  if ((index + 1) * kPack<T> <= count) return *reinterpret_cast<const uint4*>(from);
  float values[kPack<T>];
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) values[i] = index * kPack<T> + i < count ? to_float(from[i]) : 0.0f;
  return pack<T>(values);
}

template <class T>
__device__ __forceinline__ void store_pack(T* x, int64_t count, int64_t index, const uint4& packed) {
  T* to = x + index * kPack<T>;
  if ((index + 1) * kPack<T> <= count) {
    *reinterpret_cast<uint4*>(to) = packed;
    return;
  }
  float values[kPack<T>];
  unpack<T>(packed, values);
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) {
    if (index * kPack<T> + i < count) to[i] = from_float<T>(values[i]);
  }
}

template <class T, int kWorld>
__global__ void __launch_bounds__(kSumThreads)
    sum_kernel(const __grid_constant__ PeerGroup group, int64_t part_bytes, T* x, int64_t count) {
  allow_next();
  wait_for_previous();
  const Buffers buffers(group, part_bytes);
  const int64_t packs = (count + kPack<T> - 1) / kPack<T>;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSumThreads + threadIdx.x;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kSumThreads;
  for (int64_t begin = first; begin < packs; begin += kSumBatch * stride) {
    uint4 own[kSumBatch];
#pragma unroll
    for (int i = 0; i < kSumBatch; ++i) {
      if (begin + i * stride < packs) own[i] = sealed(load_pack(x, count, begin + i * stride));
    }
#pragma unroll
    for (int i = 0; i < kSumBatch; ++i) {
      const int64_t index = begin + i * stride;
      if (index >= packs) continue;
      for_peers<kWorld>(group, [&](int peer) { store_words(buffers.slot(peer, group.rank, index), own[i]); });
    }
  }
  buffers.pass();
  Patience patience;
  for (int64_t index = first; index < packs; index += stride) {
    const uint4 own = sealed(load_pack(x, count, index));
    const auto slot_of = [&](int rank) { return buffers.slot(group.rank, rank, index); };
    store_pack(x, count, index, take_sum<T, kWorld>(group, slot_of, own, patience));
  }
}

// How many blocks of so many threads are resident on the device at once. All GPUs of a process are of the same model.
template <auto kKernel>
int64_t resident_blocks(int threads) {
  static const int multiprocessors = [] {
    int device = 0, count = 0;
    (void)cudaGetDevice(&device);
    return cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) == cudaSuccess ? count : 1;
  }();
  int each = 0;
  (void)cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kKernel, threads, 0);
  return int64_t{std::max(each, 1)} * multiprocessors;
}

template <auto kKernel>
cudaError_t launch_rows(const PeerGroup& group, int64_t part_bytes, const NormArgs& args, int threads,
                        cudaStream_t stream) {
  const int64_t blocks = std::min(args.num_rows, resident_blocks<kKernel>(threads));
  return launch_dependent<kKernel>({dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads))}, stream,
                                   group, part_bytes, args);
}

// Calls launch(std::integral_constant) with the smallest number of ranks for which kernels exist that is at least the
// group's.
template <class Launch>
cudaError_t with_world(int world, const Launch& launch) {
  if (world <= 2) return launch(std::integral_constant<int, 2>());
  if (world <= 4) return launch(std::integral_constant<int, 4>());
  return launch(std::integral_constant<int, kPeersMax>());
}

template <class T, int kPacks>
cudaError_t launch_packed(const PeerGroup& group, const NormArgs& args, bool two_rounds, cudaStream_t stream) {
  const int threads = threads_for<T, kPacks>(args.width);
  return with_world(group.world, [&](auto world) {
    constexpr int kWorld = decltype(world)::value;
    if constexpr (kWorld > 2) {
      if (two_rounds) {
        return launch_rows<two_rounds_kernel<T, kPacks, kWorld>>(group, two_rounds_bytes(group), args, threads, stream);
      }
    }
    return launch_rows<one_round_kernel<T, kPacks, kWorld>>(group, one_round_bytes(group), args, threads, stream);
  });
}

template <class T>
cudaError_t launch_norm(const PeerGroup& group, const NormArgs& args, bool two_rounds, cudaStream_t stream) {
  const int64_t packs = args.width / kPack<T>;
  if (packs <= kThreadsMax) return launch_packed<T, 1>(group, args, two_rounds, stream);
  return launch_packed<T, 2>(group, args, two_rounds, stream);
}

int64_t element_bytes(Element element) { return element == Element::kF32 ? 4 : 2; }

// How many bytes a rank stores for a sum of so many bytes in one round, beyond what it would store in two.
int64_t bytes_more(const PeerGroup& group, int64_t bytes) {
  const int64_t world = group.world;
  return bytes * (world - 1) * (world - 2) / world;
}

// The number of rows that fit into a buffer.
int64_t rows_max(const PeerGroup& group, int64_t row_bytes, bool two_rounds) {
  return two_rounds ? two_rounds_bytes(group) / row_bytes * group.world : one_round_bytes(group) / row_bytes;
}

const void* row_at(const void* rows, int64_t row, int64_t row_bytes) {
  return rows == nullptr ? nullptr : static_cast<const char*>(rows) + row * row_bytes;
}

}  // namespace

bool peer_sum_pays(const PeerGroup& group, Element element, const void* x, int64_t count) {
  return aligned_to_packs({x}) && bytes_more(group, count * element_bytes(element)) <= kLibraryBytes;
}

cudaError_t peer_sum(const PeerGroup& group, Element element, void* x, int64_t count, cudaStream_t stream) {
  if (!aligned_to_packs({x})) return cudaErrorInvalidValue;
  const int64_t most = one_round_bytes(group) / element_bytes(element);
  return with_element(element, [&](auto zero) {
    using T = decltype(zero);
    return with_world(group.world, [&](auto world) {
      constexpr auto kKernel = sum_kernel<T, decltype(world)::value>;
      for (int64_t begin = 0; begin < count; begin += most) {
        const int64_t part = std::min(most, count - begin);
        const int64_t packs = (part + kPack<T> - 1) / kPack<T>;
        const int64_t blocks = std::min((packs + kSumThreads - 1) / kSumThreads, resident_blocks<kKernel>(kSumThreads));
        const cudaError_t error =
            launch_dependent<kKernel>({dim3(static_cast<unsigned>(blocks)), dim3(kSumThreads)}, stream, group,
                                      one_round_bytes(group), static_cast<T*>(x) + begin, part);
        if (error != cudaSuccess) return error;
      }
      return cudaSuccess;
    });
  });
}

bool can_peer_add_and_norm(const PeerGroup& group, const NormArgs& args) {
  const int64_t row_bytes = args.width * element_bytes(args.element);
  return args.x != nullptr && row_bytes > 0 && row_bytes % 16 == 0 && row_bytes / 16 <= kPacksMax * kThreadsMax &&
         aligned_to_packs({args.x, args.bias, args.residual, args.gamma, args.beta, args.out}) &&
         rows_max(group, row_bytes, false) > 0 && rows_max(group, row_bytes, true) > 0;
}

cudaError_t peer_add_and_norm(const PeerGroup& group, const NormArgs& args, cudaStream_t stream, PeerRows how) {
  if (!can_peer_add_and_norm(group, args)) return cudaErrorInvalidValue;
  const int64_t row_bytes = args.width * element_bytes(args.element);
  const bool pays = bytes_more(group, args.num_rows * row_bytes) > kRoundBytes;
  const bool two_rounds = group.world > 2 && (how == PeerRows::kFastest ? pays : how == PeerRows::kTwoRounds);
  const int64_t most = rows_max(group, row_bytes, two_rounds);
  for (int64_t begin = 0; begin < args.num_rows; begin += most) {
    NormArgs part = args;
    part.num_rows = std::min(most, args.num_rows - begin);
    part.x = row_at(args.x, begin, row_bytes);
    part.residual = const_cast<void*>(row_at(args.residual, begin, row_bytes));
    part.out = const_cast<void*>(row_at(args.out, begin, row_bytes));
    const cudaError_t error = with_element(
        args.element, [&](auto zero) { return launch_norm<decltype(zero)>(group, part, two_rounds, stream); });
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace optserve::kernels
