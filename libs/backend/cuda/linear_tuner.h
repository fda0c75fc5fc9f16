// Chooses and runs the fastest way to multiply for each shape: candidates of cuBLASLt and our own kernels are timed
// when a shape is first seen, and what was found is kept on disk.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "backend/cuda/cuda_handles.h"
#include "backend/cuda/linear_choices.h"
#include "base/error.h"
#include "kernels/skinny_linear.h"
#include "tensor/buffer.h"

namespace optserve::backend::cuda {

// y[rows, out] = activation(x[rows, in] W[out, in]^T + bias). In fp16 and bf16 sums are in fp32; a bias needs an output
// of the same type.
struct LinearCall {
  kernels::Element element = kernels::Element::kF16;  // of x, weight, bias, and of y unless out_f32
  bool out_f32 = false;
  bool relu = false;
  const void* x = nullptr;
  int64_t x_stride = 0;  // elements between rows
  kernels::WeightFormat format = kernels::WeightFormat::kPlain;
  const void* weight = nullptr;   // of `element`, row-major; or packed values (kernels/quantised.h)
  const float* scales = nullptr;  // packed; null for plain weights
  // Of fp8, where x may be rounded to fp8 too: the codes once more, row-major, and room for codes of x, in * rows bytes
  // and a float for each row behind them at the next multiple of 16. Null else.
  const void* row_major = nullptr;
  void* byte_room = nullptr;
  const void* bias = nullptr;  // or null
  void* y = nullptr;
  int64_t y_stride = 0;
  int64_t rows = 0, in = 0, out = 0;
};

struct LinearTunerOptions {
  std::string gpu_name;
  // Where choices are kept, by name of the GPU, version of cuBLASLt and build of this program; empty: nowhere. All
  // ranks of a host may share it.
  std::string cache_folder;
  // For plain weights, the only ones then, one algorithm for all numbers of rows, under which a row's bits do not
  // depend on the others: of those that are seen to keep that, the one that is fastest over few, some and many rows
  // together.
  bool batch_invariant = false;
};

// That no candidate could run.
Error no_way(const LinearCall& call);

class LinearTuner {
 public:
  // Throws Error if the device has no room for a workspace.
  LinearTuner(cudaStream_t stream, const kernels::DeviceLimits& limits, Device device,
              const LinearTunerOptions& options);

  // Enqueues the product. `may_time`: whether the stream may be waited for, so that an unknown shape is tuned; else it
  // runs by a guess.
  void run(const LinearCall& call, bool may_time);

 private:
  using Key = LinearKey;
  using Choice = LinearChoice;
  struct Layouts;
  // Enqueues a call one way; whether it could.
  using TryRun = std::function<bool(const LinearCall&)>;

  Key key_of(const LinearCall& call) const;
  std::vector<Choice> candidates(const LinearCall& call, const Layouts& layouts, int32_t alignment_bytes) const;
  // Of `choices`, timed on the call; an earlier one where two are about equal, so that two starts choose alike.
  Choice fastest(const LinearCall& call, const std::vector<Choice>& choices,
                 const std::function<bool(const LinearCall&, const Choice&)>& try_run);
  Choice choose_invariant(const LinearCall& call);
  bool is_invariant(const LinearCall& call, const Choice& choice);
  void run_plain(const LinearCall& call, bool may_time);
  bool try_skinny(const LinearCall& call) const;
  bool try_plain(const LinearCall& call, const Layouts& layouts, const Choice& choice) const;

  // linear_bytes.cc
  // By cuBLASLt's products of fp8 by fp8; empty where there is none.
  std::vector<Choice> byte_candidates(const LinearCall& call) const;
  bool try_bytes(const LinearCall& call, const Choice& choice) const;

  // linear_quantised.cc
  std::vector<Choice> quantised_candidates(const LinearCall& call) const;
  void run_quantised(const LinearCall& call, bool may_time);
  bool try_quantised(const LinearCall& call, const Choice& choice);
  // By fp16 or bf16 weights, made a part at a time.
  void run_dequantised(const LinearCall& call, bool may_time);

  // Time of one call in microseconds, in a row of calls on different weights as in a real step; negative if it cannot
  // run.
  float time_of(const LinearCall& call, const TryRun& try_run);
  bool enqueue_row_of_calls(const LinearCall& call, const TryRun& try_run) const;

  cudaStream_t stream_;
  kernels::DeviceLimits limits_;
  bool batch_invariant_;
  Device device_;
  LtHandle handle_;
  Buffer workspace_;
  Buffer stand_ins_;    // weights for timing, more than a cache holds, so that they come from memory as in a real step
  Buffer dequantised_;  // a part of a matrix
  Buffer shared_sums_;  // of kernels::wgmma_linear()
  Event begin_, end_;
  LinearChoices choices_;
};

}  // namespace optserve::backend::cuda
