// NCCL groups with one process per GPU, on as many GPUs as there are. This process never calls CUDA: its children could
// not any more.
#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cmath>

#include "base/error.h"
#include "comm/run_ranks.h"

namespace optserve::comm {
namespace nccl_communicator_test {

using std::chrono::steady_clock;
using testing::HasSubstr;

constexpr int kTimeoutMs = 60'000;

void must(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw Error(std::string(call) + ": " + cudaGetErrorString(status));
}
#define MUST(call) must(call, #call)

int count_gpus() {
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

struct Setting {
  RankKind control = RankKind::kProcesses;
  bool all_gpus = true;
  bool blocking = false;
  bool sum_in_order = false;
  int world() const { return all_gpus ? count_gpus() : 1; }
};

// Of this process, once it is a rank.
struct Gpu {
  int index = 0;
  cudaStream_t stream = nullptr;
};
Gpu gpu;

// Memory of this rank's GPU. Freed with the process.
struct GpuTensor {
  GpuTensor(DType element_type, int64_t size) : dtype(element_type), numel(size) {
    MUST(cudaMalloc(&data, bytes()));
    MUST(cudaMemsetAsync(data, 0, bytes(), gpu.stream));
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

NcclOptions options_of(const Setting& setting, int rank) {
  NcclOptions options;
  options.device = rank;
  options.stream = gpu.stream;
  options.timeout_ms = kTimeoutMs;
  options.sum_in_order = setting.sum_in_order;
  options.allocate = [](size_t bytes) {  // freed with the process
    void* data = nullptr;
    MUST(cudaMalloc(&data, bytes));
    return Buffer(data, bytes, {DeviceKind::kCuda, gpu.index}, [](void*) {});
  };
  options.blocking = setting.blocking;
  return options;
}

std::vector<int> fork_gpu_ranks(const Setting& setting, const RankBody& body,
                                const std::function<void(int rank)>& before_setup = {}) {
  const int world = setting.world(), port = free_port();
  const ProcessGroupMemory memory = create_process_group_memory(world);
  const auto statuses = fork_ranks_with(
      world,
      [&](int rank) {
        auto control = setting.control == RankKind::kTcp
                           ? make_tcp_communicator(tcp_options(port, rank, world, kTimeoutMs), system_clock())
                           : make_process_communicator(memory, rank, world, kTimeoutMs, system_clock());
        if (before_setup) before_setup(rank);
        gpu.index = rank;
        MUST(cudaSetDevice(rank));
        MUST(cudaStreamCreateWithFlags(&gpu.stream, cudaStreamNonBlocking));
        return make_nccl_communicator(std::move(control), options_of(setting, rank), system_clock());
      },
      body);
  close(memory.fd);
  return statuses;
}

class NcclCommunicator : public testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    if (count_gpus() == 0) GTEST_SKIP() << "no GPU";
    if (GetParam().all_gpus && count_gpus() == 1) GTEST_SKIP() << "one GPU: the same as a group of one";
  }
  void run(const RankBody& body) {
    EXPECT_EQ(fork_gpu_ranks(GetParam(), body), std::vector<int>(static_cast<size_t>(GetParam().world()), 0));
  }
};

INSTANTIATE_TEST_SUITE_P(Groups, NcclCommunicator,
                         testing::Values(Setting{RankKind::kProcesses, false, false},
                                         Setting{RankKind::kProcesses, true, false},
                                         Setting{RankKind::kProcesses, true, true},
                                         Setting{RankKind::kTcp, true, false},
                                         Setting{RankKind::kProcesses, true, false, true}),
                         [](const auto& setting) {
                           const Setting& s = setting.param;
                           return rank_kind_name(s.control) + (s.all_gpus ? "AllGpus" : "OneGpu") +
                                  (s.blocking ? "Blocking" : "") + (s.sum_in_order ? "SumsInOrder" : "");
                         });

// Sixteenths of small integers: sums of them are exact in every type and order.
float exact_value(int64_t i, int rank, int round = 0) {
  return static_cast<float>((i * 7 + rank * 3 + round) % 33 - 16) / 16.0f;
}
std::vector<float> exact_values(int64_t size, int rank, int round = 0) {
  std::vector<float> values;
  for (int64_t i = 0; i < size; ++i) values.push_back(exact_value(i, rank, round));
  return values;
}
std::vector<float> exact_sums(int64_t size, int world, int round = 0) {
  std::vector<float> sums(static_cast<size_t>(size));
  for (int rank = 0; rank < world; ++rank) {
    for (int64_t i = 0; i < size; ++i) sums[static_cast<size_t>(i)] += exact_value(i, rank, round);
  }
  return sums;
}

TEST_P(NcclCommunicator, SumsWhatTheHostSums) {
  run([](Communicator& comm) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const int64_t size : {1, 768, 12288, 12288 * 64, 3'000'001}) {
        const GpuTensor x(dtype, size);
        x.set_floats(exact_values(size, comm.rank()));
        comm.all_reduce_sum(x.view());
        ASSERT_EQ(x.get_floats(), exact_sums(size, comm.world())) << dtype_name(dtype) << " " << size;
      }
    }
  });
}

// Values whose sum depends on the order: whatever NCCL's is, it is the same everywhere and every time.
TEST_P(NcclCommunicator, AllRanksHoldTheSameBits) {
  run([](Communicator& comm) {
    for (const int64_t size : {768, 12288, 3'000'001}) {
      std::vector<float> values;
      for (int64_t i = 0; i < size; ++i) {
        values.push_back(std::sin(static_cast<float>(i + 1) * 0.37f) *
                         std::pow(10.0f, static_cast<float>((comm.rank() * 7 + i) % 9 - 4)));
      }
      const GpuTensor x(DType::kF32, size), all(DType::kF32, size * comm.world());
      x.set_floats(values);
      comm.all_reduce_sum(x.view());
      comm.all_gather(x.view(), all.view());
      const std::vector<uint8_t> mine = x.get(), blocks = all.get();
      for (int rank = 0; rank < comm.world(); ++rank) {
        const auto block = blocks.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(rank) * mine.size());
        ASSERT_TRUE(std::equal(mine.begin(), mine.end(), block)) << "rank " << rank << ", " << size;
      }
      x.set_floats(values);
      comm.all_reduce_sum(x.view());
      ASSERT_EQ(x.get(), mine);
    }
  });
}

TEST_P(NcclCommunicator, GathersAndBroadcastsEveryType) {
  run([](Communicator& comm) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kI32, DType::kU8, DType::kI64}) {
      const int64_t size = 5001;
      const GpuTensor x(dtype, size), all(dtype, size * comm.world());
      const auto fill = [&](int rank) { return std::vector<uint8_t>(x.bytes(), static_cast<uint8_t>(rank + 1)); };
      x.set(fill(comm.rank()).data());
      comm.all_gather(x.view(), all.view());
      std::vector<uint8_t> expected;
      for (int rank = 0; rank < comm.world(); ++rank) {
        const auto block = fill(rank);
        expected.insert(expected.end(), block.begin(), block.end());
      }
      ASSERT_EQ(all.get(), expected);
      for (int root = 0; root < comm.world(); ++root) {
        x.set(fill(comm.rank()).data());
        comm.broadcast(x.view(), root);
        ASSERT_EQ(x.get(), fill(root));
      }
    }
    std::vector<uint8_t> bytes(comm.rank() == 0 ? 10 : 0, 7);
    comm.broadcast_bytes(bytes, 0);
    EXPECT_EQ(bytes, std::vector<uint8_t>(10, 7));
    comm.barrier();
    comm.throw_if_lost();
  });
}

TEST_P(NcclCommunicator, RunsInsideAGraphAgainAndAgain) {
  run([](Communicator& comm) {
    const int64_t size = 12288;
    for (const DType dtype : {DType::kF16, DType::kF32}) {
      const GpuTensor source(dtype, size), x(dtype, size), all(dtype, size * comm.world());
      const auto body = [&] {
        MUST(cudaMemcpyAsync(x.data, source.data, x.bytes(), cudaMemcpyDeviceToDevice, gpu.stream));
        comm.all_reduce_sum(x.view());
        comm.all_gather(x.view(), all.view());
        comm.broadcast(x.view(), comm.world() - 1);
      };
      body();  // NCCL connects
      MUST(cudaStreamSynchronize(gpu.stream));
      cudaGraph_t graph = nullptr;
      cudaGraphExec_t executable = nullptr;
      MUST(cudaStreamBeginCapture(gpu.stream, cudaStreamCaptureModeThreadLocal));
      body();
      MUST(cudaStreamEndCapture(gpu.stream, &graph));
      MUST(cudaGraphInstantiate(&executable, graph, 0));
      for (int round = 0; round < 100; ++round) {
        source.set_floats(exact_values(size, comm.rank(), round));
        MUST(cudaGraphLaunch(executable, gpu.stream));
        const std::vector<float> sums = exact_sums(size, comm.world(), round);
        ASSERT_EQ(x.get_floats(), sums) << "round " << round;
        const std::vector<float> gathered = all.get_floats();
        ASSERT_TRUE(std::equal(sums.begin(), sums.end(), gathered.end() - static_cast<ptrdiff_t>(size)));
      }
      MUST(cudaGraphExecDestroy(executable));
      MUST(cudaGraphDestroy(graph));
    }
  });
}

// The survivors hang in a kernel; the control communicator tells them, and abort() ends the kernel.
TEST_P(NcclCommunicator, AKilledPeerEndsTheSurvivors) {
  const int world = GetParam().world();
  if (world < 2) GTEST_SKIP() << "nobody survives";
  const auto start = steady_clock::now();
  const auto statuses = fork_gpu_ranks(GetParam(), [](Communicator& comm) {
    const GpuTensor x(DType::kF16, 1 << 20);
    comm.all_reduce_sum(x.view());
    MUST(cudaStreamSynchronize(gpu.stream));
    if (comm.rank() == comm.world() - 1) raise(SIGKILL);
    try {
      comm.all_reduce_sum(x.view());
      while (cudaStreamQuery(gpu.stream) == cudaErrorNotReady) {
        comm.throw_if_lost();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      for (;;) comm.throw_if_lost();  // NCCL ended the kernel first
    } catch (const Error& error) {
      comm.abort(error.what());
    }
    const auto until = steady_clock::now() + std::chrono::seconds(20);
    while (cudaStreamQuery(gpu.stream) == cudaErrorNotReady && steady_clock::now() < until) usleep(1000);
    EXPECT_NE(cudaStreamQuery(gpu.stream), cudaErrorNotReady) << "the kernel still waits";
    EXPECT_THROW(comm.all_reduce_sum(x.view()), Error);
  });
  std::vector<int> expected(static_cast<size_t>(world), 0);
  expected.back() = 128 + SIGKILL;
  EXPECT_EQ(statuses, expected);
  EXPECT_LT(steady_clock::now() - start, std::chrono::seconds(60));
}

TEST_P(NcclCommunicator, APeerThatDiesBeforeTheSetupEndsTheOthers) {
  const int world = GetParam().world();
  if (world < 2 || GetParam().blocking) GTEST_SKIP() << "nobody survives, or only the supervisor ends it";
  const auto start = steady_clock::now();
  const auto statuses = fork_gpu_ranks(
      GetParam(), [](Communicator&) { ADD_FAILURE() << "the group is not complete"; },
      [&](int rank) {
        if (rank == world - 1) raise(SIGKILL);
      });
  std::vector<int> expected(static_cast<size_t>(world), 2);
  expected.back() = 128 + SIGKILL;
  EXPECT_EQ(statuses, expected);
  EXPECT_LT(steady_clock::now() - start, std::chrono::seconds(50));
}

}  // namespace nccl_communicator_test
}  // namespace optserve::comm
