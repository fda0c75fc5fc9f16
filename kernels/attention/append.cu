// Copies rows of K and V from the result of the QKV projection into the cache.
#include "kernels/attention/kv_cells.cuh"
#include "kernels/dependent_launch.cuh"

namespace optserve::kernels {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpLanes;

// Copies rows in units of type `Unit`; `page_row` units make a row of one head.
template <typename Unit>
__global__ void __launch_bounds__(kThreads)
    append_rows(AttentionArgs args, const int32_t* slots, int64_t first_row, int page_row) {
  allow_next();
  wait_for_previous();
  const int64_t row = first_row + blockIdx.x;
  const int slot = slots[row];
  if (slot < 0) return;
  const int64_t block = slot / kBlockTokens;
  const int offset = slot % kBlockTokens, width = args.heads * page_row;
  const Unit* from = static_cast<const Unit*>(args.qkv) + row * 3 * width + width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    const int head = i / page_row;
    const int64_t to = ((block * args.heads + head) * kBlockTokens + offset) * page_row + i % page_row;
    static_cast<Unit*>(args.keys)[to] = from[i];
    static_cast<Unit*>(args.values)[to] = from[width + i];
  }
}

// The same for int8 cells: a warp stores the K or the V of one head, kVector elements per lane and access.
template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads)
    append_int8_rows(AttentionArgs args, const int32_t* slots, int64_t first_row) {
  allow_next();
  wait_for_previous();
  const int64_t row = first_row + blockIdx.x;
  const int slot = slots[row];
  if (slot < 0) return;
  const T* from = static_cast<const T*>(args.qkv) + row * 3 * args.heads * args.head_dim;
  for (int item = threadIdx.x / kWarpLanes; item < 2 * args.heads; item += kWarps) {
    const bool is_key = item < args.heads;
    const int head = is_key ? item : item - args.heads;
    const int64_t page = static_cast<int64_t>(slot / kBlockTokens) * args.heads + head;
    const int64_t cell = page * kBlockTokens + slot % kBlockTokens;
    store_cell<kVector>(from + static_cast<int64_t>(args.heads + item) * args.head_dim, args.head_dim,
                        static_cast<int8_t*>(is_key ? args.keys : args.values) + cell * args.head_dim,
                        (is_key ? args.key_scales : args.value_scales) + cell);
  }
}

template <typename Unit>
cudaError_t launch_append(const AttentionArgs& args, const int32_t* slots, int64_t first_row, int64_t num_rows,
                          cudaStream_t stream) {
  const int page_row = args.head_dim * (args.element == Element::kF32 ? 4 : 2) / static_cast<int>(sizeof(Unit));
  const LaunchShape shape{static_cast<unsigned>(num_rows), kThreads};
  return launch_dependent<append_rows<Unit>>(shape, stream, args, slots, first_row, page_row);
}

cudaError_t launch_int8(const AttentionArgs& args, const int32_t* slots, int64_t first_row, int64_t num_rows,
                        cudaStream_t stream) {
  const LaunchShape shape{static_cast<unsigned>(num_rows), kThreads};
  const bool in_fours = args.head_dim % 4 == 0 && aligned_to_packs({args.qkv, args.keys, args.values});
  return with_element(args.element, [&](auto zero) {
    using T = decltype(zero);
    if (in_fours) return launch_dependent<append_int8_rows<T, 4>>(shape, stream, args, slots, first_row);
    return launch_dependent<append_int8_rows<T, 1>>(shape, stream, args, slots, first_row);
  });
}

}  // namespace

cudaError_t append_kv(const AttentionArgs& args, const int32_t* kv_slots, int64_t first_row, int64_t num_rows,
                      cudaStream_t stream) {
  if (num_rows == 0) return cudaGetLastError();
  if (args.key_scales != nullptr) return launch_int8(args, kv_slots, first_row, num_rows, stream);
  const int element_bytes = args.element == Element::kF32 ? 4 : 2;
  if (args.head_dim * element_bytes % sizeof(uint4) == 0 && aligned_to_packs({args.qkv, args.keys, args.values})) {
    return launch_append<uint4>(args, kv_slots, first_row, num_rows, stream);
  }
  if (element_bytes == 4) return launch_append<uint32_t>(args, kv_slots, first_row, num_rows, stream);
  return launch_append<uint16_t>(args, kv_slots, first_row, num_rows, stream);
}

}  // namespace optserve::kernels
