// A model's weights and vectors on the device, and the graphs of a step over them.
#pragma once

#include <functional>
#include <stdexcept>
#include <vector>

#include "kernels/bench/step_bench_kernels.cuh"
#include "kernels/bench/step_bench_plan.h"

namespace optserve::kernels::step_bench {

[[noreturn]] inline void fail(const std::string& why) { throw std::runtime_error(why); }

inline void check(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return;
  fail(what + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")");
}

// Its operations have ended when they return, also for streams that do not wait for the default stream.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    check(cudaMalloc(&data_, count * sizeof(T)), "cudaMalloc");
    fill(0);
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* get() const { return data_; }
  size_t count() const { return count_; }
  void put(const std::vector<T>& from) {
    check(cudaMemcpy(data_, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice), "copy to the device");
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  void fill(int byte) {
    check(cudaMemset(data_, byte, count_ * sizeof(T)), "cudaMemset");
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  std::vector<T> read() const {
    std::vector<T> to(count_);
    check(cudaMemcpy(to.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "copy from the device");
    return to;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

// A recorded graph. Move-only.
class Graph {
 public:
  Graph(cudaStream_t stream, const std::function<void()>& launches) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    launches();
    check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    check(cudaGraphInstantiate(&exec_, graph, 0), "cudaGraphInstantiate");
    check(cudaGraphDestroy(graph), "cudaGraphDestroy");
  }
  ~Graph() {
    if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
  }
  Graph(Graph&& other) noexcept : exec_(other.exec_) { other.exec_ = nullptr; }
  Graph& operator=(Graph&&) = delete;

  void launch(cudaStream_t stream) const { check(cudaGraphLaunch(exec_, stream), "cudaGraphLaunch"); }

 private:
  cudaGraphExec_t exec_ = nullptr;
};

class Runs {
 public:
  Runs(const Model& model, const Device& device, uint64_t limit_ns)
      : model_(model),
        device_(device),
        limit_ns_(limit_ns),
        shape_(make_step(model, Variant{}, nullptr)),
        weights_(shape_.bytes() / sizeof(uint4)),
        x0_(model.hidden / 2),
        tagged_(size_t{kVectors} * words_max()),
        plain_(size_t{kVectors} * words_max()),
        logits_(model.vocabulary / 2),
        turn_(2),
        gave_up_(1),
        sum_(1) {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    fill_weights<<<device.multiprocessors * 8, 256, 0, stream_>>>(weights_.get(), weights_.count());
    check(cudaGetLastError(), "fill_weights");
    set_input(1);
    wait();
  }
  ~Runs() { cudaStreamDestroy(stream_); }
  Runs(const Runs&) = delete;
  Runs& operator=(const Runs&) = delete;

  cudaStream_t stream() const { return stream_; }
  uint64_t bytes() const { return shape_.bytes(); }
  const Step& shape() const { return shape_; }

  std::vector<uint32_t> set_input(uint32_t seed) {
    std::vector<uint32_t> x(model_.hidden / 2);
    for (size_t i = 0; i < x.size(); ++i) x[i] = mixed(static_cast<uint32_t>(i) * 2654435761u + seed);
    x0_.put(x);
    return x;
  }

  std::vector<uint32_t> take_logits() {
    std::vector<uint32_t> logits = logits_.read();
    logits_.fill(0xff);
    return logits;
  }

  uint32_t take_sum() {
    const uint32_t sum = sum_.read()[0];
    sum_.fill(0);
    return sum;
  }

  // Waits for the stream. Ends the program if a kernel failed or gave up.
  void wait() const {
    check(cudaStreamSynchronize(stream_),
          "a kernel failed (\"launch failure\" is also what a bulk copy that never came ends in)");
    if (gave_up_.read()[0] != 0) fail("a block waited longer than the limit for a vector, and all gave up");
  }

  // Nothing if the variant does not fit the device. Without waits the results are wrong: it is the stream alone.
  std::optional<Graph> persistent(const Variant& v, bool waits, uint32_t delay_ns = 0) {
    const Step step = make_step(model_, v, reinterpret_cast<const char*>(weights_.get()));
    const auto layout = persistent_layout(step, v, device_);
    if (!layout || v.warps > kWarpsMax) return std::nullopt;
    const auto kernel = waits ? persistent_step<true> : persistent_step<false>;
    prepare(kernel, layout->bytes);
    int resident = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, v.warps * kLanes, layout->bytes),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    if (static_cast<uint32_t>(resident) < v.per_sm) return std::nullopt;
    const Vectors vectors{x0_.get(), tagged_.get(), logits_.get(), turn_.get(), words_max()};
    const Watch watch{gave_up_.get(), limit_ns_, v.sleep, delay_ns};
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(device_.multiprocessors * v.per_sm);
    config.blockDim = dim3(v.warps * kLanes);
    config.dynamicSmemBytes = layout->bytes;
    config.stream = stream_;
    config.attrs = &attribute;
    config.numAttrs = v.cooperative != 0 ? 1 : 0;
    return Graph(stream_, [&] {
      check(cudaLaunchKernelEx(&config, kernel, step, *layout, vectors, watch), "launch of the persistent step");
    });
  }

  std::optional<Graph> chain(const Variant& v) {
    const Step step = make_step(model_, v, reinterpret_cast<const char*>(weights_.get()));
    Layout layouts[kKinds];
    uint32_t bytes_max = 0;
    for (uint32_t kind = 0; kind < kKinds; ++kind) {
      const auto layout = chain_layout(step, kind, v, device_);
      if (!layout || v.warps > kWarpsMax) return std::nullopt;
      layouts[kind] = *layout;
      bytes_max = std::max(bytes_max, layout->bytes);
    }
    prepare(chain_product, bytes_max);
    prepare(chain_attention, 0);
    return Graph(stream_, [&] {
      for (uint32_t product = 0; product < step.products(); ++product) link(step, product, layouts, v);
    });
  }

  Graph plain_read() {
    prepare(read_all, 0);
    return Graph(stream_, [&] {
      read_all<<<device_.multiprocessors * 2, kReadThreads, 0, stream_>>>(weights_.get(), weights_.count(), sum_.get());
      check(cudaGetLastError(), "launch of the plain read");
    });
  }

 private:
  uint32_t words_max() const { return 2 * model_.hidden; }  // of fc1's result

  template <class Kernel>
  static void prepare(Kernel kernel, uint32_t shared_bytes) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
          "cudaFuncSetAttribute of shared memory");
    // A multiprocessor changes the split between shared memory and L1 only when it is empty.
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
          "cudaFuncSetAttribute of the carveout");
  }

  uint32_t* plain_vector(uint32_t phase) const {
    return plain_.get() + static_cast<size_t>(phase % kVectors) * words_max();
  }

  // Launches a product, and attention behind qkv.
  void link(const Step& step, uint32_t product, const Layout (&layouts)[kKinds], const Variant& v) {
    const uint32_t kind = step.kind_of(product), phase = step.phase_of(product);
    const ChainLink link{product, phase == 0 ? x0_.get() : plain_vector(phase - 1),
                         kind == kHead ? logits_.get() : plain_vector(phase), v.prefetch, v.at_once != 0};
    const Watch watch{gave_up_.get(), limit_ns_, 0, 0};
    const LaunchShape shape{dim3(device_.multiprocessors * v.per_sm), dim3(v.warps * kLanes), layouts[kind].bytes};
    if (phase == 0) {  // nothing comes before it
      chain_product<<<shape.grid, shape.block, shape.shared_bytes, stream_>>>(step, layouts[kind], link, watch);
      check(cudaGetLastError(), "launch of the chain's first product");
    } else {
      check(launch_dependent<chain_product>(shape, stream_, step, layouts[kind], link, watch), "launch of a product");
    }
    if (kind != kQkv) return;
    const uint32_t* qkv = plain_vector(phase);
    const LaunchShape heads{dim3(step.heads), dim3(kLanes)};
    check(launch_dependent<chain_attention>(heads, stream_, step, qkv, plain_vector(phase + 1)), "launch of attention");
  }

  Model model_;
  Device device_;
  uint64_t limit_ns_;
  Step shape_;
  DeviceArray<uint4> weights_;
  DeviceArray<uint32_t> x0_;
  DeviceArray<uint64_t> tagged_;
  DeviceArray<uint32_t> plain_, logits_, turn_, gave_up_, sum_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace optserve::kernels::step_bench
