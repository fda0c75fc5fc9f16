#include "backend/cuda/cuda_backend.h"
#include "base/error.h"

namespace optserve::backend {

using cuda::expect;

namespace {

// Ends the recording whatever happens, so that the stream stays usable.
class Recording {
 public:
  Recording(cudaStream_t stream, bool& capturing) : stream_(stream), capturing_(capturing) {
    expect(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    capturing_ = true;
  }
  ~Recording() {
    if (capturing_) (void)end();
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  // Empty if nothing could be recorded.
  cuda::Graph end() {
    capturing_ = false;
    cudaGraph_t graph = nullptr;
    return cudaStreamEndCapture(stream_, &graph) == cudaSuccess ? cuda::Graph(graph) : cuda::Graph();
  }

 private:
  cudaStream_t stream_;
  bool& capturing_;
};

}  // namespace

void CudaBackend::forget_recordings() {
  for (auto& [key, graph] : graphs_) {
    graph.exec = {};
  }
}

void CudaBackend::drop_recordings() {
  (void)cudaStreamSynchronize(stream_);
  forget_recordings();
  graphs_.clear();
}

// The first run of a body is an ordinary one: it chooses algorithms, sizes scratch and lets libraries load what they
// need, none of which can be recorded.
void CudaBackend::capture_or_run(uint64_t key, const std::function<void()>& body) {
  Graph& graph = graphs_[key];
  if (!graph.ran) {
    graph.ran = true;
    return body();
  }
  if (graph.exec == nullptr) {
    Recording recording(stream_, capturing_);
    body();
    const cuda::Graph recorded = recording.end();
    if (recorded == nullptr) throw Error("CUDA: the graph of a step could not be recorded");
    graph.exec = cuda::instantiate(recorded);
  }
  expect(cudaGraphLaunch(graph.exec, stream_), "cudaGraphLaunch");
}

}  // namespace optserve::backend
