// The backend for machines without a GPU, and the reference that CUDA kernels are tested against. Computes in fp32,
// with AVX2 where the machine has it (kernels.h). Each family of operations is one source file of this folder.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/thread_pool.h"
#include "sampling/logit_steps.h"

namespace optserve::backend {

class CpuBackend final : public Backend {
 public:
  // Throws Error for a compute type other than F32 or a device index other than 0.
  explicit CpuBackend(const BackendOptions& options);

  // memory.cc
  Device device() const override { return {}; }
  std::string description() const override;
  DType compute_dtype() const override { return DType::kF32; }
  Buffer allocate(size_t bytes) override;
  Buffer allocate_host(size_t bytes) override { return allocate(bytes); }
  void upload(Tensor destination, const void* source) override;
  void download(void* destination, const Tensor& source) override;
  void copy_to_host(void* destination, const Tensor& source) override { download(destination, source); }
  void fill_zero(Tensor x) override;
  void synchronize() override {}
  Mark mark() override { return 0; }
  void wait(Mark) override {}
  double ms_between(Mark, Mark) override { return 0; }  // calls are done when they return
  Buffer load_table(const void* source, DType source_dtype, int64_t numel) override;
  Buffer random_table(const RandomBlock& block) override;
  void capture_or_run(uint64_t key, const std::function<void()>& body) override;

  // linear.cc
  quant::Weight load_weight(const quant::StoredMatrix& stored) override;
  size_t weight_bytes(quant::QuantFormat format, int64_t out, int64_t in) const override;
  quant::Weight random_weight(const RandomBlock& block, quant::QuantFormat format) override;
  quant::Weight weight_of_table(const Tensor&) override { return {}; }  // linear() needs panels

 private:
  // memory.cc
  void do_copy(const Tensor& source, Tensor destination) override;
  void do_gather_rows(const Tensor& x, const Tensor& rows, Tensor out) override;
  void do_interleave_ranks(const Tensor& in, Tensor out) override;

  // embedding.cc
  void do_embed(const StepEntry& entry, const Tensor& table, int64_t first_id, const Tensor& position_table,
                Tensor out) override;
  void do_add_positions(const Tensor& positions, const Tensor& table, Tensor x) override;

  // norm.cc
  void do_layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor out) override;
  void do_add_bias_residual(const Tensor& x, const Tensor& bias, Tensor residual) override;
  void do_add_bias_residual_norm(const Tensor& x, const Tensor& bias, Tensor residual, const Tensor& gamma,
                                 const Tensor& beta, Tensor out) override;

  // linear.cc
  void do_linear(const Tensor& x, const quant::Weight& weight, const Tensor& bias, Activation activation,
                 Tensor out) override;

  // attention.cc
  void do_attention(const Tensor& qkv, const AttentionBatch& batch, KvLayer layer, Tensor out) override;

  // sampling.cc
  void do_sample(const Tensor& logits, const SampleBatch& batch, const SampleOutputs& out) override;
  void do_token_logprobs(const Tensor& logits, const Tensor& targets, int64_t vocab_real, Tensor out,
                         const BestIds& best) override;
  void reserve_scratch(int64_t vocab_real);

  const CpuKernels& kernels_;
  bool fp8_activations_;
  ThreadPool pool_;
  std::vector<std::unique_ptr<sampling::SamplerScratch>>
      scratch_;  // one for each thread, made when the vocabulary is first seen
};

}  // namespace optserve::backend
