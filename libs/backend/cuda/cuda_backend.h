// The operations on one NVIDIA GPU, by our kernels and, for large products, cuBLASLt. Weights and tables are stored as
// files hold them, in the compute type. Each family of operations is one source file of this folder.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <unordered_map>

#include "backend/backend.h"
#include "backend/cuda/cuda_check.h"
#include "backend/cuda/cuda_handles.h"
#include "backend/cuda/linear_tuner.h"
#include "backend/faster_way.h"
#include "kernels/attention/attention.h"
#include "kernels/element.h"

namespace optserve::backend {

class CudaBackend final : public Backend {
 public:
  // Throws Error if the device is absent or the kernels do not know the compute type.
  explicit CudaBackend(const BackendOptions& options);
  ~CudaBackend() override;

  // cuda_backend.cc
  Device device() const override { return device_; }
  std::string description() const override;
  DType compute_dtype() const override { return compute_dtype_; }
  void* native_stream() const override { return stream_; }
  bool runs_ahead() const override { return true; }
  int64_t padded_rows(int64_t rows) const override;
  void synchronize() override;
  Mark mark() override;
  void wait(Mark mark) override;
  double ms_between(Mark from, Mark to) override;

  // memory.cc
  std::optional<DeviceMemory> memory() const override;
  Buffer allocate(size_t bytes) override;
  Buffer allocate_host(size_t bytes) override;
  void upload(Tensor destination, const void* source) override;
  void download(void* destination, const Tensor& source) override;
  void copy_to_host(void* destination, const Tensor& source) override;
  void fill_zero(Tensor x) override;
  Buffer load_table(const void* source, DType source_dtype, int64_t numel) override;
  Buffer random_table(const RandomBlock& block) override;

  // weights.cc
  quant::Weight load_weight(const quant::StoredMatrix& stored) override;
  size_t weight_bytes(quant::QuantFormat format, int64_t out, int64_t in) const override;
  quant::Weight random_weight(const RandomBlock& block, quant::QuantFormat format) override;
  quant::Weight weight_of_table(const Tensor& table) override;

  // relu_skip.cc
  void prepare_sparse_input(quant::Weight& weight) override;
  size_t sparse_input_bytes(quant::QuantFormat format, int64_t out, int64_t in) const override;

  // graphs.cc
  void capture_or_run(uint64_t key, const std::function<void()>& body) override;
  void drop_recordings() override;

 private:
  // memory.cc
  void do_copy(const Tensor& source, Tensor destination) override;

  // elementwise.cc
  void do_embed(const StepEntry& entry, const Tensor& table, int64_t first_id, const Tensor& position_table,
                Tensor out) override;
  void do_add_positions(const Tensor& positions, const Tensor& table, Tensor x) override;
  void do_layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor out) override;
  void do_add_bias_residual(const Tensor& x, const Tensor& bias, Tensor residual) override;
  void do_add_bias_residual_norm(const Tensor& x, const Tensor& bias, Tensor residual, const Tensor& gamma,
                                 const Tensor& beta, Tensor out) override;
  void do_gather_rows(const Tensor& x, const Tensor& rows, Tensor out) override;
  void do_interleave_ranks(const Tensor& in, Tensor out) override;

  // linear.cc
  void do_linear(const Tensor& x, const quant::Weight& weight, const Tensor& bias, Activation activation,
                 Tensor out) override;

  // attention.cc
  void do_attention(const Tensor& qkv, const AttentionBatch& batch, KvLayer layer, Tensor out) override;

  // sampling.cc
  void do_sample(const Tensor& logits, const SampleBatch& batch, const SampleOutputs& out) override;
  void do_token_logprobs(const Tensor& logits, const Tensor& targets, int64_t vocab_real, Tensor out,
                         const BestIds& best) override;

  // Scratch memory that grows only outside of graphs, since the first run of a graph's body is not recorded.
  struct Scratch {
    Buffer buffer;
    void* at_least(CudaBackend& backend, size_t bytes);
  };
  struct Graph {
    bool ran = false;
    bool can_skip = false;  // one of its products can skip zeros, so it is recorded in two ways
    cuda::GraphExec exec, skipping_exec;
    FasterWay faster;  // of the two
  };

  kernels::Element element() const;
  // Drops all recordings: graphs hold addresses, so they must be recorded again after scratch memory has moved.
  void forget_recordings();
  void fill_random_on_device(const RandomBlock& block, void* out);
  // Whether quantised weights stay quantised; otherwise they are dequantised when they are loaded.
  bool keeps_quantised() const;
  // Whether fp8 codes are kept a second time, row-major, for products of fp8 by fp8.
  bool keeps_row_major(quant::QuantFormat format) const;
  // Packs row-major values and scales on the device, or dequantises them. `spare` is memory on the device for the
  // packed form when it is needed only in between; it is not used if quantised weights are kept.
  quant::Weight make_quantised(const quant::StoredMatrix& stored, std::byte* spare);
  // relu_skip.cc
  bool keeps_by_input(quant::QuantFormat format, int64_t out, int64_t in) const;
  // Enqueues the product without the weights that are multiplied by zeros; returns whether it could.
  bool try_relu_skip(const Tensor& x, const quant::Weight& weight, Tensor out);
  // graphs.cc
  void record(const std::function<void()>& body, cuda::GraphExec& exec);
  void replay(Graph& graph);
  void note_time();
  void decode(const kernels::AttentionArgs& args, int64_t num_decodes);
  // A tile of one row for each decoding sequence, on the device.
  const int32_t* decode_tiles(int64_t num_decodes);

  Device device_;
  DType compute_dtype_;
  std::string name_;
  kernels::DeviceLimits limits_;
  cuda::Stream stream_;
  std::array<cuda::Event, kMarksMax> events_{};
  Mark marks_ = 0;
  bool capturing_ = false;
  std::unordered_map<uint64_t, Graph> graphs_;
  Scratch attention_scratch_, sampling_scratch_, load_scratch_, skip_scratch_, byte_scratch_;
  ReluSkip relu_skip_;
  bool fp8_activations_;
  bool skipping_;          // products skip zeros where they can
  bool can_skip_ = false;  // such a product was enqueued
  // The run of a graph that is being timed; null: none.
  Graph* timed_ = nullptr;
  cuda::Event timed_begin_, timed_end_;
  // Whether decoding may load from the cache before its wait (kernels::AttentionArgs::is_cache_settled). embed() writes
  // the block table, layer_norm() lets later kernels begin only when embed() has ended, and what a layer's attention
  // writes is read only by the next step, unless the layer is called again in this one.
  bool settled(const KvLayer& layer);
  bool is_table_settled_ = false;
  const void* first_keys_ = nullptr;  // of the first layer attended to since then
  bool one_attention_;                // all rows use the prompts' kernel, whose sums do not depend on the cuts
  Scratch decode_tiles_;
  int64_t num_decode_tiles_ = 0;
  std::unique_ptr<cuda::LinearTuner> tuner_;
};

}  // namespace optserve::backend
