// The time of one sum over the ranks in F16, measured on rank 0, for 2, 4, 8 ... of the machine's GPUs: over NCCL
// inside a CUDA graph, and enqueued one by one, with NcclOptions::blocking and without; then followed by bias, residual
// and norm inside a graph, over NCCL and over peer memory. Each rank is a process; this one never calls CUDA, which
// would not survive the fork.
#include <cuda_runtime.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <vector>

#include "base/error.h"
#include "comm/communicator.h"
#include "comm/nccl_test_gpu.h"

namespace optserve::comm {
namespace {

constexpr int kInGraph = 100;  // all-reduces of one graph
constexpr int kReplays = 50;
constexpr int kTimeoutMs = 60'000;

double us_each(int count, const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / count;
}

struct Times {
  double graph_us, issued_us;
};

Times measure(Communicator& comm, Tensor x) {
  const auto reduce = [&] {
    for (int i = 0; i < kInGraph; ++i) comm.all_reduce_sum(x);
  };
  reduce();
  MUST(cudaStreamSynchronize(gpu.stream));
  comm.barrier();
  Times times{};
  times.issued_us = us_each(kInGraph, [&] {
    reduce();
    MUST(cudaStreamSynchronize(gpu.stream));
  });
  const RecordedGraph graph(reduce);
  const auto replay = [&](int times_to_run) {
    for (int i = 0; i < times_to_run; ++i) graph.launch();
    MUST(cudaStreamSynchronize(gpu.stream));
  };
  replay(3);
  comm.barrier();
  times.graph_us = us_each(kInGraph * kReplays, [&] { replay(kReplays); });
  return times;
}

std::unique_ptr<Communicator> communicator(const ProcessGroupMemory& memory, int rank, int world, bool blocking,
                                           Collectives collectives) {
  static const SystemClock clock;
  NcclOptions options;
  options.device = rank;
  options.stream = gpu.stream;
  options.timeout_ms = kTimeoutMs;
  options.allocate = allocate_on_gpu;
  options.allocate_host = allocate_on_host;
  options.collectives = collectives;
  options.blocking = blocking;
  return make_nccl_communicator(make_process_communicator(memory, rank, world, kTimeoutMs, clock), options, clock);
}

// What the ranks of one group share: some memory for each communicator that they make.
struct GroupMemories {
  ProcessGroupMemory blocking, not_blocking, layers, peer;
};

void measure_sums(const GroupMemories& memories, int rank, int world) {
  for (const bool blocking : {false, true}) {
    const auto comm =
        communicator(blocking ? memories.blocking : memories.not_blocking, rank, world, blocking, Collectives::kNccl);
    for (const int64_t kib : {4, 24, 64, 256, 1024, 4096, 16384}) {
      const GpuTensor x(DType::kF16, kib * 512);
      const Times times = measure(*comm, x.view());
      if (rank != 0) continue;
      std::printf("%5d  %-12s  %9lld  %14.2f  %16.2f\n", world, blocking ? "blocking" : "not blocking",
                  static_cast<long long>(kib), times.graph_us, times.issued_us);
    }
  }
}

// The median time of some replays of a graph, which the ranks begin together.
double graph_us(Communicator& comm, int count, const std::function<void()>& call) {
  const auto body = [&] {
    for (int i = 0; i < count; ++i) call();
  };
  body();
  MUST(cudaStreamSynchronize(gpu.stream));
  const RecordedGraph graph(body);
  std::vector<double> times;
  for (int round = 0; round < 6; ++round) {
    comm.barrier();
    times.push_back(us_each(count * 20, [&] {
      for (int i = 0; i < 20; ++i) graph.launch();
      MUST(cudaStreamSynchronize(gpu.stream));
    }));
  }
  std::ranges::sort(times);
  return times[times.size() / 2];
}

void measure_layers(const GroupMemories& memories, int rank, int world) {
  const auto nccl = communicator(memories.layers, rank, world, true, Collectives::kNccl);
  const auto peer = communicator(memories.peer, rank, world, true, Collectives::kPeer);
  const int64_t rows_max = 1024, width_max = 12'288;
  const GpuTensor x(DType::kF16, rows_max * width_max), residual(DType::kF16, rows_max * width_max),
      out(DType::kF16, rows_max * width_max), vectors(DType::kF16, 3 * width_max);
  for (const GpuTensor* filled : {&x, &residual, &vectors}) fill_random(*filled, 7, 1e-3f);
  for (const int64_t width : {int64_t{2048}, int64_t{4096}, int64_t{7168}, int64_t{9216}, width_max}) {
    for (const int64_t rows : {1, 8, 64, 128, 256, 512, 1024}) {
      const auto rows_of = [&](const GpuTensor& t) {
        return Tensor(t.data, DType::kF16, {rows, width}, {DeviceKind::kCuda, rank});
      };
      const auto vector = [&](int64_t i) {
        return Tensor(static_cast<char*>(vectors.data) + 2 * i * width_max, DType::kF16, {width},
                      {DeviceKind::kCuda, rank});
      };
      const SumAndNorm work{rows_of(x), vector(0), rows_of(residual), vector(1), vector(2), rows_of(out)};
      const kernels::NormArgs args{kernels::Element::kF16,
                                   x.data,
                                   work.bias.raw(),
                                   residual.data,
                                   work.gamma.raw(),
                                   work.beta.raw(),
                                   out.data,
                                   rows,
                                   width};
      const int count = rows * width > (1 << 20) ? 20 : 100;
      const double norm_us = graph_us(*nccl, count, [&] { MUST(kernels::add_and_norm(args, gpu.stream)); });
      const double nccl_us = graph_us(*nccl, count, [&] {
        nccl->all_reduce_sum(rows_of(x));
        MUST(kernels::add_and_norm(args, gpu.stream));
      });
      const double peer_us = graph_us(*peer, count, [&] { (void)peer->try_sum_and_norm(work); });
      if (rank != 0) continue;
      std::printf("%5d  %6lld  %6lld  %9.1f  %9.2f  %15.2f  %15.2f\n", world, static_cast<long long>(width),
                  static_cast<long long>(rows), static_cast<double>(rows * width) / 512, norm_us, nccl_us, peer_us);
    }
  }
}

void run_rank(const GroupMemories& memories, int rank, int world) {
  MUST(cudaSetDevice(rank));
  gpu.index = rank;
  MUST(cudaStreamCreateWithFlags(&gpu.stream, cudaStreamNonBlocking));
  measure_sums(memories, rank, world);
  if (rank == 0) {
    std::printf("%5s  %6s  %6s  %9s  %9s  %15s  %15s\n", "ranks", "width", "rows", "KiB", "norm, us", "NCCL, norm, us",
                "peer memory, us");
  }
  measure_layers(memories, rank, world);
}

int run_group(int world) {
  const GroupMemories memories{create_process_group_memory(world), create_process_group_memory(world),
                               create_process_group_memory(world), create_process_group_memory(world)};
  int failed = 0;
  std::fflush(nullptr);
  for (int rank = 0; rank < world; ++rank) {
    if (fork() != 0) continue;
    int status = 0;
    try {
      run_rank(memories, rank, world);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "rank %d: %s\n", rank, error.what());
      status = 1;
    }
    std::fflush(nullptr);
    _exit(status);
  }
  for (int rank = 0, status = 0; rank < world; ++rank) failed |= waitpid(-1, &status, 0) < 0 || status != 0;
  for (const ProcessGroupMemory& memory : {memories.blocking, memories.not_blocking, memories.layers, memories.peer}) {
    close(memory.fd);
  }
  return failed;
}

}  // namespace
}  // namespace optserve::comm

int main() {
  const int gpus = optserve::comm::count_gpus();
  std::printf("%5s  %-12s  %9s  %14s  %16s\n", "ranks", "communicator", "KiB", "us in a graph", "us one by one");
  int failed = gpus == 0;
  for (int world = 2; world <= gpus; world *= 2) failed |= optserve::comm::run_group(world);
  if (gpus < 2) std::printf("expected two GPUs or more, found %d\n", gpus);
  return failed;
}
