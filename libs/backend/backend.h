// Everything that the engine needs from hardware. CpuBackend and CudaBackend implement it, and the same tests check
// both. All tensors of a call live on the backend's device. Calls are issued in order on one stream; only download(),
// wait() and synchronize() wait. An operation may allocate scratch memory when it meets a size larger than any before,
// and otherwise allocates nothing.
//
// Types and shapes are checked once for all backends: the public operations check them (backend.cc) and then call the
// private function of the same name with do_ in front, which a backend implements. A mismatch aborts. Tensors are
// contiguous and of the compute type unless a comment says otherwise.
//
// A step may be padded to a number of rows that the device prefers (padded_rows): a padding row has slot -1, id -1,
// position -1 and KV slot -1, a padding sequence has context 0. They are read and written like others but store nothing
// that outlives the step.
//
// Axes: num_tokens (all tokens of a step, packed), num_sequences, hidden, ffn, vocab, heads (of this rank), head_dim.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/ids.h"
#include "quant/weight.h"
#include "sampling/sample_row.h"
#include "tensor/buffer.h"
#include "tensor/random_block.h"
#include "tensor/tensor.h"

namespace optserve::backend {

enum class Activation {
  kNone,
  kRelu,
  kGelu,  // x/2 (1 + erf(x / sqrt 2)), not its approximation by tanh
};

// One layer's paged keys and values on this rank. The cells of one head in one block are contiguous. Slot b *
// block_tokens + i is the i-th token of block b. Cells are of the compute type, or I8. An element is then its cell
// times the scale of its token and head, and the scale is the largest magnitude of that token and head / 127. Attention
// also reads the cells of the current step as they are stored, so that a row does not depend on how its sequence was
// cut into steps.
struct KvLayer {
  Tensor keys;            // [num_blocks, heads, block_tokens, head_dim]
  Tensor values;          // same
  Tensor key_scales{};    // F32[num_blocks, heads, block_tokens] for I8 cells, else empty
  Tensor value_scales{};  // same

  bool is_int8() const { return !key_scales.empty(); }
};

// The packed tokens of a step, as attention sees them. Sequence s owns rows [row_begin[s], row_begin[s + 1]). Sequences
// of one row come first.
struct AttentionBatch {
  int64_t num_sequences = 0;
  int64_t num_decodes = 0;  // leading sequences with exactly one row: sequence s of them owns row s
  Tensor row_begin;         // I32[num_sequences + 1]
  Tensor context;  // I32[num_sequences]: tokens in the cache including this step's; row i of n attends to context - n +
                   // i + 1
  Tensor table_rows;   // I32[num_sequences]: each sequence's row of block_table
  Tensor block_table;  // I32[rows, max_blocks]: KV blocks in order of position
  Tensor kv_slots;     // I32[num_tokens]: cache slot of each row
  Tensor tiles;  // I32[num_tiles, 2]: the other sequences cut into pieces of kAttentionTileRows: sequence, first row
};
inline constexpr int64_t kAttentionTileRows = 128;
inline constexpr int64_t kHeadDimMax = 256;

// Rows of a sampling call: one per sequence that draws a token (sampling/sample_row.h).
struct SampleBatch {
  Tensor rows;             // U8[n, sizeof(PackedSampleRow)]
  uint32_t features = 0;   // SampleFeature of the rows: steps that no row needs may be left out
  Tensor history;          // I32[slots, max tokens]: known ids of each slot; the drawn one is stored at its position
  int64_t vocab_real = 0;  // ids at or above are padding and are never drawn
  TokenId eos = 2;
  TokenId pad = 1;  // never drawn
  Tensor rules;     // I32[slots, limits::kTokenRulesWordsMax]: packed TokenRules of the slots that have some
};

// What embed() works on, besides its tables. All tensors are I32.
struct StepEntry {
  Tensor ids;              // [num_tokens]: -1 for padding. Made by embed(), or given if new_ids is empty
  Tensor positions;        // [num_tokens]: -1 for padding
  Tensor new_ids{};        // [num_tokens]: ids that the step brings; -1: the id in the history
  Tensor slots{};          // [num_tokens]: rows of the history; -1 for padding
  Tensor history{};        // [slots, max tokens]: known ids of each slot
  Tensor table_updates{};  // [n, 3]: row, column and new value of a cell of block_table; row -1: none. May be empty
  Tensor block_table{};    // [rows, max_blocks]
};

// What a sampling call fills in.
struct SampleOutputs {
  Tensor ids;       // I32[n]: -1 for a row with NaN or Inf logits among the real ids, or where nothing may be drawn
  Tensor logprobs;  // F32[n]: of the drawn ids under the model's own distribution, the log softmax of the logits
  // I32 and F32[n, limits::kTopLogprobsMax]: the best ids by logit with their log softmax, best first, in the first
  // `logprobs` columns of rows that want them; not touched without kSampleLogprobs. With PackedSampleRow::kBestAllowed
  // they are those that best_allowed_tokens() gives.
  Tensor best_ids{}, best_logprobs{};
};

// The best ids of the rows of token_logprobs() with their log-probabilities. Among equals, lower ids come first.
struct BestIds {
  int32_t count = 0;  // ids of a row, at most limits::kTopLogprobsMax; 0: none are wanted, and the tensors are not read
  // I32 and F32[n, limits::kTopLogprobsMax]: the first `count` columns of rows with a target are filled in. Where there
  // are fewer ids, and where a logit is not finite, an id is -1 and its log-probability 0.
  Tensor ids{}, logprobs{};

  BestIds rows(int64_t begin, int64_t end) const {
    return count == 0 ? BestIds{} : BestIds{count, ids.rows(begin, end), logprobs.rows(begin, end)};
  }
};

// A point in the order of calls, made by mark().
using Mark = uint64_t;

struct DeviceMemory {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual Device device() const = 0;
  virtual std::string description() const = 0;  // "cpu, 2 threads, OpenBLAS ..." for logs and benchmarks
  virtual DType compute_dtype() const = 0;      // of activations

  // The stream on which calls are issued, as the device's own library names it (cudaStream_t), so that a communicator
  // can join it; null where there is none.
  virtual void* native_stream() const { return nullptr; }
  // Whether calls return before the device has executed them, so that it pays to start a step early.
  virtual bool runs_ahead() const { return false; }
  // The device's memory; nullopt if the device has no memory of its own.
  virtual std::optional<DeviceMemory> memory() const { return std::nullopt; }
  // The number of rows, at least `rows`, to which a step of `rows` decoding sequences is padded, since graphs exist for
  // some sizes only.
  virtual int64_t padded_rows(int64_t rows) const { return rows; }

  // Memory. allocate() throws Error naming the size when the device has no room; contents are undefined.
  virtual Buffer allocate(size_t bytes) = 0;
  // The kind of host memory whose copies to and from the device are fastest.
  virtual Buffer allocate_host(size_t bytes) = 0;
  // `source` is in host memory, has destination.bytes() bytes, and must not change until a mark made after the call has
  // been waited for.
  virtual void upload(Tensor destination, const void* source) = 0;
  virtual void download(void* destination, const Tensor& source) = 0;      // waits
  virtual void copy_to_host(void* destination, const Tensor& source) = 0;  // complete once a later mark is waited for
  virtual void fill_zero(Tensor x) = 0;
  void copy(const Tensor& source, Tensor destination);  // same shape and type; both may be strided
  virtual void synchronize() = 0;
  // Any of the last kMarksMax marks may be waited for; wait() returns when every call before the mark is complete.
  virtual Mark mark() = 0;
  virtual void wait(Mark mark) = 0;
  static constexpr int kMarksMax = 8;
  // Milliseconds on the device from one mark to a later one, both waited for.
  virtual double ms_between(Mark from, Mark to) = 0;

  // Brings a matrix into the form linear() wants, on the device. Quantised values stay as they are, with their scales,
  // if the backend multiplies the format itself; otherwise they are dequantised. What `stored` points to must stay
  // unchanged for as long as the source of upload().
  virtual quant::Weight load_weight(const quant::StoredMatrix& stored) = 0;
  // The bytes on the device that load_weight() and random_weight() need for [out, in] in `format`.
  virtual size_t weight_bytes(quant::QuantFormat format, int64_t out, int64_t in) const = 0;
  // Like load_weight(), for vectors and tables that are read element by element (norms, biases, positions, embeddings).
  virtual Buffer load_table(const void* source, DType source_dtype, int64_t numel) = 0;  // result in compute_dtype()
  // Like load_weight(), with generated values. A plain `format` must be that of block.dtype.
  virtual quant::Weight random_weight(const RandomBlock& block,
                                      quant::QuantFormat format) = 0;  // quant/random_codes.h if quantised
  virtual Buffer random_table(const RandomBlock& block) = 0;
  // For the product after a ReLU: lets linear() of few rows read only those parts of a weight that are multiplied by an
  // x other than zero, if the backend can and BackendOptions::relu_skip asks for it. Takes sparse_input_bytes() more on
  // the device.
  virtual void prepare_sparse_input(quant::Weight&) {}
  virtual size_t sparse_input_bytes(quant::QuantFormat, int64_t /*out*/, int64_t /*in*/) const { return 0; }
  // A weight that reads the memory of `table`, [out, in], which must outlive it; empty if linear() needs another form.
  virtual quant::Weight weight_of_table(const Tensor& table) = 0;

  // Begins a step: where new_ids[r] >= 0 it is stored in history[slots[r], positions[r]], and ids[r] becomes what is
  // then there; table_updates go into block_table; then out[num_tokens, embed] = table[id - first_id] where first_id <=
  // id < first_id + rows of table, else 0, plus position_table[position] unless that table is empty. Position -1 adds
  // nothing. Sums are rounded once.
  void embed(const StepEntry& entry, const Tensor& table, int64_t first_id, const Tensor& position_table, Tensor out);
  // x[num_tokens, hidden] += table[position]; table: [max_positions, hidden]. Position -1 adds nothing.
  void add_positions(const Tensor& positions, const Tensor& table, Tensor x);
  // out = (x - mean) / sqrt(var + 1e-5) * gamma + beta per row, statistics in fp32, biased variance. out may be x.
  void layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor out);
  // residual += x + bias (bias may be empty). All [num_tokens, hidden].
  void add_bias_residual(const Tensor& x, const Tensor& bias, Tensor residual);
  // residual += x + bias; out = layer_norm(residual): in one pass if the device can.
  void add_bias_residual_norm(const Tensor& x, const Tensor& bias, Tensor residual, const Tensor& gamma,
                              const Tensor& beta, Tensor out);
  // out[n, out] = activation(x[n, in] * weight^T + bias); bias may be empty. x and out may be strided, and out may be
  // fp32 whatever the compute type is. Before kGelu a device may round to the type of `out`.
  void linear(const Tensor& x, const quant::Weight& weight, const Tensor& bias, Activation activation, Tensor out);
  // Stores the K and V parts of qkv[num_tokens, 3 * heads * head_dim] (q, then k, then v) at batch.kv_slots; then
  // out[num_tokens, heads * head_dim] = softmax(q k^T / sqrt(head_dim), causal) v over the paged cache. Softmax in
  // fp32. head_dim is at most kHeadDimMax.
  void attention(const Tensor& qkv, const AttentionBatch& batch, KvLayer layer, Tensor out);
  // out[i] = x[rows[i]]; rows: I32[n]. x may be strided.
  void gather_rows(const Tensor& x, const Tensor& rows, Tensor out);
  // From blocks of all ranks to whole rows: in [world, n, local] -> out [n, world * local], both of one type.
  void interleave_ranks(const Tensor& in, Tensor out);
  // Draws one token for each row of the logits F32[n, vocab], which are not changed, and stores it in the history (0
  // for -1). sampling/logit_steps.h has the order of the steps.
  void sample(const Tensor& logits, const SampleBatch& batch, const SampleOutputs& out);
  // out[i] = log softmax(logits[i])[targets[i]] over the first vocab_real ids. logits and out are F32, targets is
  // I32[n]. A target of -1 gives 0, and logits that are not finite give NaN. With `best`, each row with a target also
  // gets its best ids; the target's log-probability is the same in both places.
  void token_logprobs(const Tensor& logits, const Tensor& targets, int64_t vocab_real, Tensor out,
                      const BestIds& best = {});

  // Runs `body` (only operations of this backend and its communicator, on fixed tensors); a device with graphs runs it
  // the first time for this key, records it the second time and then replays it.
  virtual void capture_or_run(uint64_t key, const std::function<void()>& body) = 0;
  // Drops everything that was recorded. To be called before the communicator whose collectives were recorded is
  // destroyed.
  virtual void drop_recordings() {}

 private:
  // The operations above, called once their arguments have been checked.
  virtual void do_copy(const Tensor& source, Tensor destination) = 0;
  virtual void do_embed(const StepEntry& entry, const Tensor& table, int64_t first_id, const Tensor& position_table,
                        Tensor out) = 0;
  virtual void do_add_positions(const Tensor& positions, const Tensor& table, Tensor x) = 0;
  virtual void do_layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor out) = 0;
  virtual void do_add_bias_residual(const Tensor& x, const Tensor& bias, Tensor residual) = 0;
  virtual void do_add_bias_residual_norm(const Tensor& x, const Tensor& bias, Tensor residual, const Tensor& gamma,
                                         const Tensor& beta, Tensor out) = 0;
  virtual void do_linear(const Tensor& x, const quant::Weight& weight, const Tensor& bias, Activation activation,
                         Tensor out) = 0;
  virtual void do_attention(const Tensor& qkv, const AttentionBatch& batch, KvLayer layer, Tensor out) = 0;
  virtual void do_gather_rows(const Tensor& x, const Tensor& rows, Tensor out) = 0;
  virtual void do_interleave_ranks(const Tensor& in, Tensor out) = 0;
  virtual void do_sample(const Tensor& logits, const SampleBatch& batch, const SampleOutputs& out) = 0;
  virtual void do_token_logprobs(const Tensor& logits, const Tensor& targets, int64_t vocab_real, Tensor out,
                                 const BestIds& best) = 0;
};

// Whether products after a ReLU skip the weights that are multiplied by zeros. The result is the same sum in a
// different order, which depends on the other rows of a call.
enum class ReluSkip {
  kOff,
  kMeasured,  // in recorded steps where it has been measured to be faster, which is repeated now and then
  kAlways,    // wherever there is a kernel
};

struct BackendOptions {
  Device device = {};
  int threads = 0;  // CPU: 0 means all cores
  DType compute_dtype = DType::kF32;
  // A row's bits depend neither on the other rows of a call nor on how a sequence is cut into calls. This is always so
  // on the CPU; a GPU then computes each shape in one way, instead of the fastest way for each number of rows.
  bool batch_invariant = false;
  ReluSkip relu_skip = ReluSkip::kOff;  // ignored by the CPU, and where batch_invariant
  // Products with fp8 weights round x too: each row to e4m3 numbers times a scale, its largest magnitude / 448. The CPU
  // always does so; a GPU does in fp16 from 33 rows on, where this has been measured to be faster, and then keeps such
  // weights twice. Ignored by a GPU where batch_invariant.
  bool fp8_activations = false;
  std::string tuning_cache = {};  // folder for the results of timing at load; empty: they are not kept
};
// Throws Error when the device is absent or not built in.
std::unique_ptr<Backend> make_backend(const BackendOptions& options);

}  // namespace optserve::backend
