// For tests of groups of GPUs with one process each: this process, once it is a rank, and memory of its GPU.
#pragma once

#include <cuda_runtime.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/elementwise.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace optserve::comm {

inline void must(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw Error(std::string(call) + ": " + cudaGetErrorString(status));
}
#define MUST(call) must(call, #call)

// A child process asks CUDA, since a process that has called CUDA cannot fork ranks that do.
inline int count_gpus() {
  static const int count = [] {
    const pid_t pid = fork();
    if (pid == 0) {
      int found = 0;
      _exit(cudaGetDeviceCount(&found) == cudaSuccess ? found : 0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
  }();
  return count;
}

// The GPU of this process, once it is a rank.
struct Gpu {
  int index = 0;
  cudaStream_t stream = nullptr;
};
inline Gpu gpu;

// What a body enqueues on the stream of this rank's GPU, to be launched again and again. NCCL must have connected
// before.
class RecordedGraph {
 public:
  explicit RecordedGraph(const std::function<void()>& body) {
    MUST(cudaStreamBeginCapture(gpu.stream, cudaStreamCaptureModeThreadLocal));
    body();
    MUST(cudaStreamEndCapture(gpu.stream, &graph_));
    MUST(cudaGraphInstantiate(&executable_, graph_, 0));
  }
  ~RecordedGraph() {
    if (executable_ != nullptr) (void)cudaGraphExecDestroy(executable_);
    if (graph_ != nullptr) (void)cudaGraphDestroy(graph_);
  }
  RecordedGraph(const RecordedGraph&) = delete;
  RecordedGraph& operator=(const RecordedGraph&) = delete;
  void launch() const { MUST(cudaGraphLaunch(executable_, gpu.stream)); }

 private:
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

// Memory of this rank's GPU, of zeros. Freed with the process.
struct GpuTensor {
  GpuTensor(DType element_type, int64_t size) : dtype(element_type), numel(size) {
    MUST(cudaMalloc(&data, bytes()));
    MUST(cudaMemsetAsync(data, 0, bytes(), gpu.stream));
  }
  // In existing memory at `place`, which is then moved past this tensor.
  GpuTensor(DType element_type, int64_t size, char*& place) : data(place), dtype(element_type), numel(size) {
    place += (bytes() + 255) / 256 * 256;
  }
  size_t bytes() const { return static_cast<size_t>(numel) * dtype_bytes(dtype); }
  Tensor view() const { return Tensor(data, dtype, {numel}, {DeviceKind::kCuda, gpu.index}); }
  void set(const void* host) const {
    MUST(cudaMemcpyAsync(data, host, bytes(), cudaMemcpyHostToDevice, gpu.stream));
    MUST(cudaStreamSynchronize(gpu.stream));
  }
  void set_floats(const std::vector<float>& values) const {
    std::vector<uint8_t> host(bytes());
    convert_from_f32(values.data(), dtype, host.data(), values.size());
    set(host.data());
  }
  std::vector<uint8_t> get() const {
    std::vector<uint8_t> host(bytes());
    MUST(cudaMemcpyAsync(host.data(), data, bytes(), cudaMemcpyDeviceToHost, gpu.stream));
    MUST(cudaStreamSynchronize(gpu.stream));
    return host;
  }
  std::vector<float> get_floats() const {
    const std::vector<uint8_t> host = get();
    std::vector<float> values(static_cast<size_t>(numel));
    convert_to_f32(host.data(), dtype, values.data(), values.size());
    return values;
  }
  void* data = nullptr;
  DType dtype;
  int64_t numel;
};

inline kernels::Element kernel_element(DType dtype) {
  if (dtype == DType::kF32) return kernels::Element::kF32;
  return dtype == DType::kF16 ? kernels::Element::kF16 : kernels::Element::kBF16;
}

inline void fill_random(const GpuTensor& x, uint64_t key, float reach) {
  const kernels::RandomBlock block{.key = key, .reach = reach, .rows = 1, .cols = x.numel, .whole_cols = x.numel};
  MUST(kernels::fill_random(block, kernel_element(x.dtype), kernel_element(x.dtype), x.data, gpu.stream));
}

// Freed with the process.
inline Buffer allocate_on_gpu(size_t bytes) {
  void* data = nullptr;
  MUST(cudaMalloc(&data, bytes));
  return Buffer(data, bytes, {DeviceKind::kCuda, gpu.index}, [](void*) {});
}
inline Buffer allocate_on_host(size_t bytes) {
  void* data = nullptr;
  MUST(cudaMallocHost(&data, bytes));
  return Buffer(data, bytes, {}, [](void*) {});
}

}  // namespace optserve::comm
