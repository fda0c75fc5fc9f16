#include "backend/cuda/cuda_backend.h"

#include <algorithm>

#include "backend/cuda/kernel_names.h"
#include "backend/cuda_factory.h"
#include "base/error.h"

namespace optserve::backend {

namespace cuda {

void expect(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw Error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

void expect(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(std::string("cuBLASLt: ") + what + ": " + cublasLtGetStatusString(status));
}

}  // namespace cuda

using cuda::expect;

namespace {

void expect_device(int index) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || index >= count) {
    throw Error("there is no device cuda:" + std::to_string(index) + ": " +
                (status == cudaSuccess ? std::to_string(count) + " found" : std::string(cudaGetErrorString(status))));
  }
}

}  // namespace

CudaBackend::CudaBackend(const BackendOptions& options)
    : device_(options.device),
      compute_dtype_(options.compute_dtype),
      relu_skip_(options.batch_invariant ? ReluSkip::kOff : options.relu_skip),
      fp8_activations_(options.fp8_activations),
      skipping_(relu_skip_ == ReluSkip::kAlways),
      one_attention_(options.batch_invariant) {
  expect_device(device_.index);
  (void)element();  // refuses other types
  expect(cudaSetDevice(device_.index), "cudaSetDevice");
  cudaDeviceProp properties{};
  expect(cudaGetDeviceProperties(&properties, device_.index), "cudaGetDeviceProperties");
  name_ = properties.name;
  if (properties.major < 8) {
    throw Error(name_ + " has compute capability " + std::to_string(properties.major) + "." +
                std::to_string(properties.minor) + "; 8.0 is the least that is supported");
  }
  stream_ = cuda::make_stream();
  for (cuda::Event& event : events_) event = cuda::make_event();
  timed_begin_ = cuda::make_event();
  timed_end_ = cuda::make_event();
  limits_ = {.multiprocessors = properties.multiProcessorCount,
             .shared_bytes_max = static_cast<int>(properties.sharedMemPerBlockOptin),
             .compute_capability = properties.major * 10 + properties.minor};
  tuner_ = std::make_unique<cuda::LinearTuner>(
      stream_, limits_, device_, cuda::LinearTunerOptions{name_, options.tuning_cache, options.batch_invariant});
}

CudaBackend::~CudaBackend() { (void)cudaStreamSynchronize(stream_); }

std::string CudaBackend::description() const {
  int runtime = 0;
  (void)cudaRuntimeGetVersion(&runtime);
  return "cuda:" + std::to_string(device_.index) + ", " + name_ + ", " + std::string(dtype_name(compute_dtype_)) +
         ", CUDA " + std::to_string(runtime / 1000) + "." + std::to_string(runtime % 1000 / 10) + ", cuBLASLt " +
         std::to_string(cublasLtGetVersion()) + (one_attention_ ? ", batch-invariant" : "");
}

kernels::Element CudaBackend::element() const {
  const std::optional<kernels::Element> element = cuda::element_of(compute_dtype_);
  if (element) return *element;
  throw Error("the CUDA backend computes in F32, F16 or BF16, not in " + std::string(dtype_name(compute_dtype_)));
}

// There are few enough sizes that a graph for each is soon recorded, and they are close enough that padding costs
// little: an extra row costs nothing while products are bound by memory, and above 320 rows the next multiple of 64 is
// at most a fifth larger.
int64_t CudaBackend::padded_rows(int64_t rows) const {
  const auto up_to = [rows](int64_t multiple) { return (rows + multiple - 1) / multiple * multiple; };
  if (rows <= 2) return rows;
  if (rows <= 4) return 4;
  if (rows <= 128) return up_to(8);
  return up_to(64);
}

void CudaBackend::synchronize() { expect(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

Mark CudaBackend::mark() {
  expect(cudaEventRecord(events_[marks_ % kMarksMax], stream_), "cudaEventRecord");
  return marks_++;
}

void CudaBackend::wait(Mark mark) {
  check(mark < marks_ && marks_ - mark <= kMarksMax, "a mark that is too old, or not made yet");
  expect(cudaEventSynchronize(events_[mark % kMarksMax]), "cudaEventSynchronize");
}

double CudaBackend::ms_between(Mark from, Mark to) {
  float ms = 0;
  expect(cudaEventElapsedTime(&ms, events_[from % kMarksMax], events_[to % kMarksMax]), "cudaEventElapsedTime");
  return static_cast<double>(ms);
}

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options) {
  return std::make_unique<CudaBackend>(options);
}

}  // namespace optserve::backend
