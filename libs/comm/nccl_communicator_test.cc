// NCCL groups with one process for each GPU, on as many GPUs as there are. This process never calls CUDA, because the
// processes that it forks could not use CUDA after that.
#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <array>
#include <chrono>
#include <cmath>
#include <ctime>
#include <random>

#include "base/error.h"
#include "comm/nccl_test_gpu.h"
#include "comm/run_ranks.h"
#include "kernels/elementwise.h"

namespace optserve::comm {
namespace nccl_communicator_test {

using std::chrono::steady_clock;

constexpr int kTimeoutMs = 60'000;

struct Setting {
  RankKind control = RankKind::kProcesses;
  bool all_gpus = true;
  bool blocking = false;
  bool sum_in_order = false;
  Collectives collectives = Collectives::kNccl;
  int world() const { return all_gpus ? count_gpus() : 1; }
};

NcclOptions options_of(const Setting& setting, int rank) {
  NcclOptions options;
  options.device = rank;
  options.stream = gpu.stream;
  options.timeout_ms = kTimeoutMs;
  options.sum_in_order = setting.sum_in_order;
  options.allocate = allocate_on_gpu;
  options.allocate_host = allocate_on_host;
  options.collectives = setting.collectives;
  options.peer_timeout_ms = kTimeoutMs;
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
                                         Setting{RankKind::kProcesses, true, false, true},
                                         Setting{RankKind::kProcesses, true, false, false, Collectives::kPeer}),
                         [](const auto& setting) {
                           const Setting& s = setting.param;
                           return rank_kind_name(s.control) + (s.all_gpus ? "AllGpus" : "OneGpu") +
                                  (s.blocking ? "Blocking" : "") + (s.sum_in_order ? "SumsInOrder" : "") +
                                  (s.collectives == Collectives::kPeer ? "Peer" : "");
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

// The rows of a layer: a stream, what is added to it, and the vectors of the norm.
struct Layer {
  GpuTensor residual, out, bias, gamma, beta;
  Layer(DType dtype, int64_t rows, int64_t width, uint64_t key, char*& place)
      : residual(dtype, rows * width, place),
        out(dtype, rows * width, place),
        bias(dtype, width, place),
        gamma(dtype, width, place),
        beta(dtype, width, place) {
    fill_random(residual, key + 11, 2);
    fill_random(bias, key + 12, 1);
    fill_random(gamma, key + 13, 1);
    fill_random(beta, key + 14, 1);
    MUST(cudaMemsetAsync(out.data, 0xcd, out.bytes(), gpu.stream));
  }
};

struct RandomSum {
  DType dtype;
  int64_t rows, width;
  bool is_layer;  // with bias, residual and norm
  uint64_t key;
  std::string describe() const {
    return std::string(dtype_name(dtype)) + " " + std::to_string(rows) + " x " + std::to_string(width);
  }
};

void check_layer(Communicator& comm, const RandomSum& c, const GpuTensor& x, const GpuTensor& sum, char* place) {
  const Layer found(c.dtype, c.rows, c.width, c.key, place), wanted(c.dtype, c.rows, c.width, c.key, place);
  const auto rows_of = [&](const GpuTensor& t) { return t.view().reshape({c.rows, c.width}); };
  const bool has_bias = c.key % 4 != 0;
  const SumAndNorm work{rows_of(x),
                        has_bias ? found.bias.view() : Tensor(),
                        rows_of(found.residual),
                        found.gamma.view(),
                        found.beta.view(),
                        rows_of(found.out)};
  const size_t row_bytes = static_cast<size_t>(c.width) * dtype_bytes(c.dtype);
  const bool is_taken = row_bytes % 16 == 0 && row_bytes <= 24'576;
  ASSERT_EQ(comm.try_sum_and_norm(work), is_taken) << c.describe();
  if (!is_taken) return;
  MUST(kernels::add_and_norm({.element = kernel_element(c.dtype),
                              .x = sum.data,
                              .bias = has_bias ? wanted.bias.data : nullptr,
                              .residual = wanted.residual.data,
                              .gamma = wanted.gamma.data,
                              .beta = wanted.beta.data,
                              .out = wanted.out.data,
                              .num_rows = c.rows,
                              .width = c.width},
                             gpu.stream));
  ASSERT_EQ(found.residual.get(), wanted.residual.get()) << c.describe();
  ASSERT_EQ(found.out.get(), wanted.out.get()) << c.describe();
}

// Compares sums with those of the parts that NCCL gathers. `place` is memory for all parts.
void check_random_sum(Communicator& comm, const RandomSum& c, char* place) {
  const int64_t count = c.rows * c.width;
  const GpuTensor x(c.dtype, count, place), all(c.dtype, count * comm.world(), place), sum(c.dtype, count, place);
  fill_random(x, c.key + static_cast<uint64_t>(comm.rank()), static_cast<float>(1 + 2 * comm.rank()));
  comm.all_gather(x.view(), all.view());
  MUST(kernels::sum_ranks(kernel_element(c.dtype), all.data, comm.world(), count, sum.data, gpu.stream));
  if (c.is_layer) return check_layer(comm, c, x, sum, place);
  comm.all_reduce_sum(x.view());
  ASSERT_EQ(x.get(), sum.get()) << c.describe();
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

// At every size, sums over peer memory have exactly the bits of a sum in rank order over the parts that NCCL gathers.
// This holds for the sums alone and together with what follows them in a layer.
TEST_P(NcclCommunicator, RandomSizesAreSumsInRankOrder) {
  if (GetParam().collectives != Collectives::kPeer) GTEST_SKIP() << "adds in another order, or is compared with";
  constexpr int kSizes = 10'000;
  const auto seed = static_cast<uint64_t>(time(nullptr));
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  run([seed](Communicator& comm) {
    EXPECT_TRUE(comm.way().is_peer_memory) << comm.way().cause;
    constexpr int64_t kMost = 1'200'000;
    char* place = static_cast<char*>(GpuTensor(DType::kF32, kMost * (6 + comm.world()) + 1'000'000).data);
    std::mt19937_64 draw(seed);  // the same on all ranks
    for (int i = 0; i < kSizes && !testing::Test::HasFailure(); ++i) {
      RandomSum c{std::array{DType::kF16, DType::kBF16, DType::kF32}[draw() % 3], 1, 1, draw() % 2 == 0, draw()};
      c.width = static_cast<int64_t>(1 + draw() % 1500) * (c.is_layer ? 8 : 1);
      c.rows = static_cast<int64_t>(1 + draw() % 200) % (kMost / c.width) + 1;
      check_random_sum(comm, c, place);
    }
  });
}

// The sum of these values depends on the order of addition. Whatever order NCCL chooses, all ranks get the same sum
// every time.
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
      const RecordedGraph graph(body);
      for (int round = 0; round < 100; ++round) {
        source.set_floats(exact_values(size, comm.rank(), round));
        graph.launch();
        const std::vector<float> sums = exact_sums(size, comm.world(), round);
        ASSERT_EQ(x.get_floats(), sums) << "round " << round;
        const std::vector<float> gathered = all.get_floats();
        ASSERT_TRUE(std::equal(sums.begin(), sums.end(), gathered.end() - static_cast<ptrdiff_t>(size)));
      }
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
