// Everything the engine needs from hardware. CpuBackend is the readable specification; CudaBackend implements the same
// list. All tensors of a call live on the backend's device. Calls are issued in order on one stream; only download()
// and synchronize() wait. Nothing allocates except allocate(). Shapes are checked by every operation; a mismatch
// aborts.
//
// Axes: num_tokens (all tokens of a step, packed), num_sequences, hidden, ffn, vocab, heads (of this rank), head_dim.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/ids.h"
#include "quant/weight.h"
#include "sampling/sample_row.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace optserve {

enum class Activation { kNone, kRelu };

// One layer's paged keys and values on this rank. Block b holds slots [b * block_tokens, (b + 1) * block_tokens).
struct KvLayer {
  Tensor keys;    // [num_blocks, block_tokens, heads, head_dim]
  Tensor values;  // same
};

// The packed tokens of a step, as the attention operations see them. Sequence s owns rows [row_begin[s], row_begin[s +
// 1]).
struct AttentionBatch {
  int64_t num_sequences = 0;
  int64_t max_rows = 0;     // most rows of one sequence; 1 in a pure decode step
  int64_t max_context = 0;  // longest context of the step
  Tensor row_begin;         // I32[num_sequences + 1]
  Tensor context;  // I32[num_sequences]: tokens in the cache including this step's; row i of n attends to context - n +
                   // i + 1
  Tensor block_table;  // I32[num_sequences, max_blocks]: KV blocks in order of position
  Tensor kv_slots;     // I32[num_tokens]: cache slot (block * block_tokens + offset) of each row
};

// Rows of a sampling call: one per sequence that draws a token (sampling/sample_row.h).
struct SampleBatch {
  std::span<const SampleRow> rows;
  int64_t vocab_real = 0;  // ids at or above are padding and are never drawn
  TokenId eos = 2;
  TokenId pad = 1;  // never drawn
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual Device device() const = 0;
  virtual std::string description() const = 0;  // "cpu, 2 threads, OpenBLAS ..." for logs and benchmarks
  virtual DType compute_dtype() const = 0;      // of activations and KV cache

  // Memory. allocate() throws Error naming the size when the device has no room; contents are undefined.
  virtual Buffer allocate(size_t bytes) = 0;
  virtual void upload(Tensor destination, const void* source) = 0;     // source: host, destination.bytes() bytes
  virtual void download(void* destination, const Tensor& source) = 0;  // waits
  virtual void fill_zero(Tensor x) = 0;
  virtual void copy(const Tensor& source, Tensor destination) = 0;  // same shape and type
  virtual void synchronize() = 0;

  // Converts host bytes of the shard's dtype into the form linear() wants, on the device. `shape`: [out, in].
  virtual Weight load_weight(const void* source, DType source_dtype, int64_t out, int64_t in) = 0;
  // The same for vectors and tables that are read element by element (norms, biases, positions, embeddings).
  virtual Buffer load_table(const void* source, DType source_dtype, int64_t numel) = 0;  // result in compute_dtype()

  // out[num_tokens, embed] = table[id - first_id] where first_id <= id < first_id + rows of table, else 0.
  virtual void embed_tokens(const Tensor& ids, const Tensor& table, int64_t first_id, Tensor out) = 0;
  // x[num_tokens, hidden] += table[position]; table: [max_positions, hidden].
  virtual void add_positions(const Tensor& positions, const Tensor& table, Tensor x) = 0;
  // out = (x - mean) / sqrt(var + 1e-5) * gamma + beta per row, statistics in fp32, biased variance. out may be x.
  virtual void layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor out) = 0;
  // residual += x + bias (bias may be empty). All [num_tokens, hidden].
  virtual void add_bias_residual(const Tensor& x, const Tensor& bias, Tensor residual) = 0;
  // residual += x + bias; out = layer_norm(residual): one pass where the device can.
  virtual void add_bias_residual_norm(const Tensor& x, const Tensor& bias, Tensor residual, const Tensor& gamma,
                                      const Tensor& beta,
                                      Tensor out) = 0;  // NOLINT: six inputs and outputs of one fusion
  // out[n, out] = activation(x[n, in] * weight^T + bias); bias may be empty. out may be fp32 whatever the compute type.
  virtual void linear(const Tensor& x, const Weight& weight, const Tensor& bias, Activation activation, Tensor out) = 0;
  // Stores the K and V parts of qkv[num_tokens, 3 * heads * head_dim] (q, then k, then v) at batch.kv_slots.
  virtual void append_kv(const Tensor& qkv, const AttentionBatch& batch, KvLayer layer) = 0;
  // out[num_tokens, heads * head_dim] = softmax(q k^T / sqrt(head_dim), causal) v over the paged cache; softmax in
  // fp32.
  virtual void attention(const Tensor& qkv, const AttentionBatch& batch, const KvLayer& layer, Tensor out) = 0;
  // out[i] = x[rows[i]]; rows: I32[n].
  virtual void gather_rows(const Tensor& x, const Tensor& rows, Tensor out) = 0;
  // From blocks of all ranks to whole rows: in [world, n, local] -> out [n, world * local].
  virtual void interleave_ranks(const Tensor& in, Tensor out) = 0;
  // Draws one token per row of logits F32[n, vocab], which stay as they are. ids: I32[n]; logprobs: F32[n] under the
  // model's own distribution; a row with NaN or Inf logits among the real ids gives id -1. Order of steps:
  // sampling/logit_steps.h.
  virtual void sample(const Tensor& logits, const SampleBatch& batch, Tensor ids, Tensor logprobs) = 0;
  // out[i] = log softmax(logits[i])[targets[i]] over the first vocab_real ids; targets I32[n], -1 gives 0; NaN where
  // the logits are not finite.
  virtual void token_logprobs(const Tensor& logits, const Tensor& targets, int64_t vocab_real, Tensor out) = 0;

  // Runs `body` (only operations of this backend and its communicator, on fixed tensors); a device with graphs records
  // it the first time for this key and replays it later.
  virtual void capture_or_run(uint64_t key, const std::function<void()>& body) = 0;
};

struct BackendOptions {
  Device device = {};
  int threads = 0;  // CPU: 0 means all cores
  DType compute_dtype = DType::kF32;
};
// Throws Error when the device is absent or not built in.
std::unique_ptr<Backend> make_backend(const BackendOptions& options);

}  // namespace optserve
