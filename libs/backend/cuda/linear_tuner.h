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

// y[rows, out] = activation(x[rows, in] W[out, in]^T + bias). With fp16 and bf16, sums are in fp32. A bias needs an
// output of the same type.
struct LinearCall {
  kernels::Element element = kernels::Element::kF16;  // of x, weight, bias, and of y unless out_f32
  bool out_f32 = false;
  bool relu = false;
  const void* x = nullptr;
  int64_t x_stride = 0;  // elements between rows
  kernels::WeightFormat format = kernels::WeightFormat::kPlain;
  const void* weight = nullptr;   // of `element`, row-major; or packed values (kernels/quantised.h)
  const float* scales = nullptr;  // packed; null for plain weights
  // With fp8 weights, if x may be rounded to fp8 too: the codes once more, row-major, and memory for the codes of x, in
  // * rows bytes, with a float for each row after them at the next multiple of 16. Otherwise null.
  const void* row_major = nullptr;
  void* byte_room = nullptr;
  const void* bias = nullptr;  // or null
  void* y = nullptr;
  int64_t y_stride = 0;
  int64_t rows = 0, in = 0, out = 0;
};

struct LinearTunerOptions {
  std::string gpu_name;
  // The folder in which choices are kept, by the name of the GPU, the version of cuBLASLt and the build of this
  // program. Empty: they are not kept. All ranks of a host may share it.
  std::string cache_folder;
  // Uses one algorithm for all numbers of rows, with which a row's bits do not depend on the other rows: of those that
  // pass a test of this, the one that is fastest over few, some and many rows together. Only plain weights are possible
  // then.
  bool batch_invariant = false;
};

// The error that says that no candidate could run.
Error no_way(const LinearCall& call);

class LinearTuner {
 public:
  // Throws Error if the device has no room for a workspace.
  LinearTuner(cudaStream_t stream, const kernels::DeviceLimits& limits, Device device,
              const LinearTunerOptions& options);

  // Enqueues the product. With `may_time`, the stream may be waited for, so that an unknown shape is tuned; otherwise
  // it runs with the first candidate that can.
  void run(const LinearCall& call, bool may_time);

 private:
  using Key = LinearKey;
  using Choice = LinearChoice;
  struct Layouts;
  // Enqueues a call in one way; returns whether it could.
  using TryRun = std::function<bool(const LinearCall&)>;

  Key key_of(const LinearCall& call) const;
  std::vector<Choice> candidates(const LinearCall& call, const Layouts& layouts, int32_t alignment_bytes) const;
  // The fastest of `choices`, timed on the call. If two are about equally fast the earlier one wins, so that two starts
  // choose the same.
  Choice fastest(const LinearCall& call, const std::vector<Choice>& choices,
                 const std::function<bool(const LinearCall&, const Choice&)>& try_run);
  Choice choose_invariant(const LinearCall& call);
  bool is_invariant(const LinearCall& call, const Choice& choice);
  void run_plain(const LinearCall& call, bool may_time);
  bool try_skinny(const LinearCall& call) const;
  bool try_plain(const LinearCall& call, const Layouts& layouts, const Choice& choice) const;

  // linear_bytes.cc
  // cuBLASLt's products of fp8 by fp8; empty if there are none.
  std::vector<Choice> byte_candidates(const LinearCall& call) const;
  bool try_bytes(const LinearCall& call, const Choice& choice) const;

  // linear_quantised.cc
  std::vector<Choice> quantised_candidates(const LinearCall& call) const;
  void run_quantised(const LinearCall& call, bool may_time);
  bool try_quantised(const LinearCall& call, const Choice& choice);
  // Multiplies by fp16 or bf16 weights that are dequantised a part at a time.
  void run_dequantised(const LinearCall& call, bool may_time);

  // The time of one call in microseconds, among calls on different weights as in a real step; negative if it cannot
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
