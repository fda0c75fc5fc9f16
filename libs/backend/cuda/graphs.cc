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
    graph.skipping_exec = {};
  }
}

void CudaBackend::drop_recordings() {
  (void)cudaStreamSynchronize(stream_);
  forget_recordings();
  timed_ = nullptr;
  graphs_.clear();
}

void CudaBackend::record(const std::function<void()>& body, cuda::GraphExec& exec) {
  Recording recording(stream_, capturing_);
  body();
  const cuda::Graph recorded = recording.end();
  if (recorded == nullptr) throw Error("CUDA: the graph of a step could not be recorded");
  exec = cuda::instantiate(recorded);
}

// Passes on the time of the timed run once it is known.
void CudaBackend::note_time() {
  if (timed_ == nullptr || cudaEventQuery(timed_end_) != cudaSuccess) return;
  float ms = 0;
  expect(cudaEventElapsedTime(&ms, timed_begin_, timed_end_), "cudaEventElapsedTime");
  timed_->faster.took(static_cast<double>(ms));
  timed_ = nullptr;
}

void CudaBackend::replay(Graph& graph) {
  if (!graph.can_skip) return expect(cudaGraphLaunch(graph.exec, stream_), "cudaGraphLaunch");
  note_time();
  const FasterWay::Run run = graph.faster.next();
  const bool is_timed = timed_ == nullptr && run.wants_time;
  if (is_timed) expect(cudaEventRecord(timed_begin_, stream_), "cudaEventRecord");
  expect(cudaGraphLaunch(run.takes_second ? graph.skipping_exec : graph.exec, stream_), "cudaGraphLaunch");
  if (!is_timed) return;
  expect(cudaEventRecord(timed_end_, stream_), "cudaEventRecord");
  timed_ = &graph;
}

// The first run of a body is not recorded: it chooses algorithms, sizes scratch memory and lets libraries load what
// they need, none of which can be recorded.
void CudaBackend::capture_or_run(uint64_t key, const std::function<void()>& body) {
  Graph& graph = graphs_[key];
  if (!graph.ran) {
    graph.ran = true;
    can_skip_ = false;
    body();
    graph.can_skip = can_skip_ && relu_skip_ == ReluSkip::kMeasured;
    return;
  }
  if (graph.exec == nullptr) {
    record(body, graph.exec);
    if (graph.can_skip) {
      skipping_ = true;
      record(body, graph.skipping_exec);
      skipping_ = false;
    }
  }
  replay(graph);
}

}  // namespace optserve::backend
