#include "kernels/attention/attention.h"

#include <algorithm>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "base/limits.h"

namespace optserve::backend {

using cuda::expect;

static_assert(kernels::kBlockTokens == limits::kKvBlockTokens);
static_assert(kernels::kPrefillTileRows == kAttentionTileRows);
static_assert(kernels::kHeadDimMax == kHeadDimMax);

void CudaBackend::decode(const kernels::AttentionArgs& args, int64_t num_decodes) {
  const size_t bytes = kernels::decode_scratch_bytes(num_decodes, args.heads, args.head_dim);
  void* scratch = attention_scratch_.at_least(*this, bytes);
  const int splits = kernels::decode_splits(num_decodes, args.heads, args.head_dim, limits_.multiprocessors);
  expect(kernels::decode_attention(args, num_decodes, splits, scratch, stream_), "decode_attention");
}

const int32_t* CudaBackend::decode_tiles(int64_t num_decodes) {
  if (num_decodes > num_decode_tiles_) {
    check(!capturing_, "attention: a graph of more sequences than were ever run");
    std::vector<int32_t> tiles(static_cast<size_t>(2 * num_decodes));
    for (size_t i = 0; i < static_cast<size_t>(num_decodes); ++i) tiles[2 * i] = static_cast<int32_t>(i);
    void* memory = decode_tiles_.at_least(*this, tiles.size() * sizeof(int32_t));
    expect(cudaMemcpyAsync(memory, tiles.data(), tiles.size() * sizeof(int32_t), cudaMemcpyHostToDevice, stream_),
           "decode tiles");
    synchronize();
    num_decode_tiles_ = num_decodes;
  }
  return static_cast<const int32_t*>(decode_tiles_.buffer.data());
}

bool CudaBackend::settled(const KvLayer& layer) {
  if (first_keys_ == layer.keys.raw()) is_table_settled_ = false;
  if (first_keys_ == nullptr) first_keys_ = layer.keys.raw();
  return is_table_settled_;
}

void CudaBackend::do_attention(const Tensor& qkv, const AttentionBatch& batch, KvLayer layer, Tensor out) {
  check(layer.keys.dim(2) == kernels::kBlockTokens, "attention: KV blocks of another size than kernels know");
  const kernels::AttentionArgs args{
      .element = element(),
      .heads = static_cast<int>(layer.keys.dim(1)),
      .head_dim = static_cast<int>(layer.keys.dim(3)),
      .num_tokens = qkv.dim(0),
      .qkv = qkv.raw(),
      .keys = layer.keys.raw(),
      .values = layer.values.raw(),
      .num_blocks = layer.keys.dim(0),
      .key_scales = layer.is_int8() ? layer.key_scales.data<float>() : nullptr,
      .value_scales = layer.is_int8() ? layer.value_scales.data<float>() : nullptr,
      .table_rows = batch.table_rows.data<int32_t>(),
      .block_table = batch.block_table.data<int32_t>(),
      .table_stride = batch.block_table.row_stride(),
      .row_begin = batch.row_begin.data<int32_t>(),
      .context = batch.context.data<int32_t>(),
      .out = out.raw(),
      .is_cache_settled = settled(layer),
  };
  const int64_t num_decodes = one_attention_ ? 0 : batch.num_decodes;
  if (num_decodes > 0) decode(args, num_decodes);
  const int64_t prompt_rows = qkv.dim(0) - num_decodes;
  if (prompt_rows == 0) return;
  expect(kernels::append_kv(args, batch.kv_slots.data<int32_t>(), num_decodes, prompt_rows, stream_), "append_kv");
  if (one_attention_ && batch.num_decodes > 0) {
    expect(kernels::prefill_attention(args, decode_tiles(batch.num_decodes), batch.num_decodes, stream_),
           "prefill_attention");
  }
  const auto* tiles = batch.tiles.data<int32_t>();
  if (!one_attention_ && kernels::can_prefill_on_hopper(args, limits_)) {
    expect(kernels::prefill_attention_on_hopper(args, tiles, batch.tiles.dim(0), limits_, stream_),
           "prefill_attention_on_hopper");
  } else {
    expect(kernels::prefill_attention(args, tiles, batch.tiles.dim(0), stream_), "prefill_attention");
  }
}

}  // namespace optserve::backend
