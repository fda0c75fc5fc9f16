#include "backend/cuda/cuda_backend.h"
#include "base/error.h"

namespace optserve {

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

  cudaGraph_t end() {
    capturing_ = false;
    cudaGraph_t graph = nullptr;
    const cudaError_t status = cudaStreamEndCapture(stream_, &graph);
    if (status != cudaSuccess) graph = nullptr;
    return graph;
  }

 private:
  cudaStream_t stream_;
  bool& capturing_;
};

}  // namespace

void CudaBackend::forget_recordings() {
  for (auto& [key, graph] : graphs_) {
    if (graph.exec != nullptr) (void)cudaGraphExecDestroy(graph.exec);
    graph.exec = nullptr;
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
    const cudaGraph_t recorded = recording.end();
    if (recorded == nullptr) throw Error("CUDA: the graph of a step could not be recorded");
    const cudaError_t status = cudaGraphInstantiate(&graph.exec, recorded, 0);
    (void)cudaGraphDestroy(recorded);
    expect(status, "cudaGraphInstantiate");
  }
  expect(cudaGraphLaunch(graph.exec, stream_), "cudaGraphLaunch");
}

}  // namespace optserve
