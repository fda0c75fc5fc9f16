// Chooses and runs the fastest way to multiply for each shape: candidates of cuBLASLt and our kernel for few rows are
// timed when a shape is first seen, and what was found is kept on disk.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kernels/skinny_linear.h"
#include "tensor/buffer.h"

namespace optserve::cuda {

// y[rows, out] = activation(x[rows, in] W[out, in]^T + bias). In fp16 and bf16 sums are in fp32; a bias needs an output
// of the same type.
struct LinearCall {
  kernels::Element element = kernels::Element::kF16;  // of x, weight, bias, and of y unless out_f32
  bool out_f32 = false;
  bool relu = false;
  const void* x = nullptr;
  int64_t x_stride = 0;  // elements between rows
  const void* weight = nullptr;
  const void* bias = nullptr;  // or null
  void* y = nullptr;
  int64_t y_stride = 0;
  int64_t rows = 0, in = 0, out = 0;
};

struct LinearTunerOptions {
  std::string gpu_name;
  // Where choices are kept, by name of the GPU and version of cuBLASLt; empty: nowhere. All ranks of a host may share
  // it.
  std::string cache_folder;
  // One algorithm for all numbers of rows, under which a row's bits do not depend on the others: of those that are seen
  // to keep that, the one that is fastest over few, some and many rows together.
  bool batch_invariant = false;
};

class LinearTuner {
 public:
  // Throws Error if the device has no room for a workspace.
  LinearTuner(cudaStream_t stream, int multiprocessors, Device device, const LinearTunerOptions& options);
  ~LinearTuner();
  LinearTuner(const LinearTuner&) = delete;
  LinearTuner& operator=(const LinearTuner&) = delete;

  // Enqueues the product. `may_time`: whether the stream may be waited for, so that an unknown shape is tuned; else it
  // runs by cuBLASLt's own guess.
  void run(const LinearCall& call, bool may_time);

 private:
  // Shapes that share a choice.
  struct Key {
    int32_t flags = 0;  // element, out_f32, relu, bias
    int32_t alignment = 0;
    int64_t rows = 0, in = 0, out = 0;  // rows: rounded up
    auto operator<=>(const Key&) const = default;
  };
  struct Choice {
    bool skinny = false;
    cublasLtMatmulAlgo_t algorithm{};
  };
  struct Layouts;

  Key key_of(const LinearCall& call) const;
  static kernels::SkinnyLinearArgs skinny_args(const LinearCall& call);
  std::vector<Choice> candidates(const LinearCall& call, const Layouts& layouts, int32_t alignment_bytes) const;
  Choice choose(const LinearCall& call, const Layouts& layouts);
  Choice choose_invariant(const LinearCall& call);
  bool is_invariant(const LinearCall& call, const Choice& choice);
  // Time of one call in microseconds, in a row of calls on different weights as in a real step; negative if the
  // candidate cannot run.
  float time_of(const LinearCall& call, const Layouts& layouts, const Choice& choice);
  bool enqueue_row_of_calls(const LinearCall& call, const Layouts& layouts, const Choice& choice) const;
  bool try_skinny(const LinearCall& call) const;
  bool try_run(const LinearCall& call, const Layouts& layouts, const Choice& choice) const;
  void load_choices();
  void keep(const Key& key, const Choice& choice) const;

  cudaStream_t stream_;
  int multiprocessors_;
  bool batch_invariant_;
  Device device_;
  cublasLtHandle_t handle_ = nullptr;
  Buffer workspace_;
  Buffer stand_ins_;  // weights for timing, more than a cache holds, so that they come from memory as in a real step
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  std::string cache_path_;
  std::map<Key, Choice> choices_;
};

}  // namespace optserve::cuda
