// The time of one all-reduce in F16 over NCCL, measured on rank 0, for 2, 4, 8 ... of the machine's GPUs: inside a CUDA
// graph, and enqueued one by one, with NcclOptions::blocking and without. Each rank is a process; this one never calls
// CUDA, which would not survive the fork.
#include <cuda_runtime.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>

#include "base/error.h"
#include "comm/communicator.h"

namespace optserve::comm {
namespace {

constexpr int kInGraph = 100;  // all-reduces of one graph
constexpr int kReplays = 50;
constexpr int kTimeoutMs = 60'000;

void must(cudaError_t status) {
  if (status != cudaSuccess) throw Error(cudaGetErrorString(status));
}

double us_each(int count, const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / count;
}

struct Times {
  double graph_us, issued_us;
};

Times measure(Communicator& comm, Tensor x, cudaStream_t stream) {
  const auto reduce = [&] {
    for (int i = 0; i < kInGraph; ++i) comm.all_reduce_sum(x);
  };
  reduce();
  must(cudaStreamSynchronize(stream));
  comm.barrier();
  Times times{};
  times.issued_us = us_each(kInGraph, [&] {
    reduce();
    must(cudaStreamSynchronize(stream));
  });
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  reduce();
  must(cudaStreamEndCapture(stream, &graph));
  must(cudaGraphInstantiate(&executable, graph, 0));
  const auto replay = [&](int times_to_run) {
    for (int i = 0; i < times_to_run; ++i) must(cudaGraphLaunch(executable, stream));
    must(cudaStreamSynchronize(stream));
  };
  replay(3);
  comm.barrier();
  times.graph_us = us_each(kInGraph * kReplays, [&] { replay(kReplays); });
  must(cudaGraphExecDestroy(executable));
  must(cudaGraphDestroy(graph));
  return times;
}

void run_rank(const ProcessGroupMemory& memory, int rank, int world, bool blocking) {
  must(cudaSetDevice(rank));
  cudaStream_t stream = nullptr;
  must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const SystemClock clock;
  auto control = make_process_communicator(memory, rank, world, kTimeoutMs, clock);
  const auto comm = make_nccl_communicator(
      std::move(control), {.device = rank, .stream = stream, .timeout_ms = kTimeoutMs, .blocking = blocking}, clock);
  for (const int64_t kib : {4, 24, 64, 256, 1024, 4096, 16384}) {
    void* data = nullptr;
    must(cudaMalloc(&data, static_cast<size_t>(kib) * 1024));
    must(cudaMemset(data, 0, static_cast<size_t>(kib) * 1024));
    const Times times = measure(*comm, Tensor(data, DType::kF16, {kib * 512}, {DeviceKind::kCuda, rank}), stream);
    if (rank == 0) {
      std::printf("%5d  %-12s  %9lld  %14.2f  %16.2f\n", world, blocking ? "blocking" : "not blocking",
                  static_cast<long long>(kib), times.graph_us, times.issued_us);
    }
    must(cudaFree(data));
  }
}

int run_group(int world, bool blocking) {
  const ProcessGroupMemory memory = create_process_group_memory(world);
  int failed = 0;
  std::fflush(nullptr);
  for (int rank = 0; rank < world; ++rank) {
    if (fork() != 0) continue;
    int status = 0;
    try {
      run_rank(memory, rank, world, blocking);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "rank %d: %s\n", rank, error.what());
      status = 1;
    }
    std::fflush(nullptr);
    _exit(status);
  }
  for (int rank = 0, status = 0; rank < world; ++rank) failed |= waitpid(-1, &status, 0) < 0 || status != 0;
  close(memory.fd);
  return failed;
}

int count_gpus() {
  if (const pid_t pid = fork(); pid == 0) {
    int found = 0;
    _exit(cudaGetDeviceCount(&found) == cudaSuccess ? found : 0);
  } else {
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
  }
}

}  // namespace
}  // namespace optserve::comm

int main() {
  const int gpus = optserve::comm::count_gpus();
  std::printf("%5s  %-12s  %9s  %14s  %16s\n", "ranks", "communicator", "KiB", "us in a graph", "us one by one");
  int failed = gpus == 0;
  for (int world = 2; world <= gpus; world *= 2) {
    for (const bool blocking : {false, true}) failed |= optserve::comm::run_group(world, blocking);
  }
  if (gpus < 2) std::printf("expected two GPUs or more, found %d\n", gpus);
  return failed;
}
