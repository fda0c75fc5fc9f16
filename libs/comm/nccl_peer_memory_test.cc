// Sums over peer memory: the kernels for every size of group, and what happens when a rank offers no memory, computes
// something else or does not take part. Ranks share GPUs if there are fewer GPUs than ranks. This process never calls
// CUDA.
#include "comm/nccl_peer_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <random>

#include "base/error.h"
#include "comm/nccl_test_gpu.h"
#include "comm/reduction.h"
#include "comm/run_ranks.h"

namespace optserve::comm {
namespace nccl_peer_memory_test {

using kernels::PeerRows;
using std::chrono::steady_clock;
using testing::HasSubstr;

// All ranks of a group in this process. They are spread over the GPUs, and each has its own stream.
class GroupOfStreams {
 public:
  GroupOfStreams(int world, int64_t buffer_bytes) : world_(world) {
    int gpus = 0;
    MUST(cudaGetDeviceCount(&gpus));
    for (int rank = 0; rank < world; ++rank) {
      Rank& r = ranks_[static_cast<size_t>(rank)];
      r.device = rank % gpus;
      MUST(cudaSetDevice(r.device));
      for (int other = 0; other < gpus; ++other) {
        if (other != r.device && rank < gpus) MUST(cudaDeviceEnablePeerAccess(other, 0));
      }
      MUST(cudaStreamCreateWithFlags(&r.stream, cudaStreamNonBlocking));
      MUST(cudaMalloc(&r.memory, kMemoryBytes));
      MUST(cudaMalloc(&r.inbox, 2 * static_cast<size_t>(buffer_bytes)));
      MUST(cudaMemset(r.inbox, 0xff, 2 * static_cast<size_t>(buffer_bytes)));
      MUST(cudaMalloc(&r.group.state, sizeof(kernels::PeerState)));
      MUST(cudaMemset(r.group.state, 0, sizeof(kernels::PeerState)));
      MUST(cudaMallocHost(&r.group.control, sizeof(kernels::PeerControl)));
      *r.group.control = {};
      r.group.rank = rank;
      r.group.world = world;
      r.group.buffer_bytes = buffer_bytes;
      r.group.limit_ns = 20'000'000'000;
    }
    for (int rank = 0; rank < world; ++rank) {
      for (int peer = 0; peer < world; ++peer) of(rank).group.inbox[peer] = of(peer).inbox;
    }
  }

  struct Rank {
    int device = 0;
    cudaStream_t stream = nullptr;
    char* memory = nullptr;
    void* inbox = nullptr;
    kernels::PeerGroup group;
  };
  static constexpr size_t kMemoryBytes = size_t{48} << 20;

  Rank& of(int rank) { return ranks_[static_cast<size_t>(rank)]; }
  int world() const { return world_; }

  // Makes `rank` the one for which GpuTensor allocates.
  Rank& enter(int rank) {
    Rank& entered = of(rank);
    MUST(cudaSetDevice(entered.device));
    gpu = {entered.device, entered.stream};
    return entered;
  }

 private:
  int world_;
  std::array<Rank, kernels::kPeersMax> ranks_;
};

struct Case {
  DType dtype;
  int64_t rows, width;
  bool has_norm;
  PeerRows how;
  uint64_t key;
};

// What a rank computes, and what it should compute.
struct Outcome {
  GpuTensor x, all, sum, residual, wanted_residual, out, wanted_out, vectors;
  Outcome(const Case& c, int world, char* place)
      : x(c.dtype, c.rows * c.width, place),
        all(c.dtype, c.rows * c.width * world, place),
        sum(c.dtype, c.rows * c.width, place),
        residual(c.dtype, c.rows * c.width, place),
        wanted_residual(c.dtype, c.rows * c.width, place),
        out(c.dtype, c.rows * c.width, place),
        wanted_out(c.dtype, c.rows * c.width, place),
        vectors(c.dtype, 3 * (c.width + 7) / 8 * 8, place) {}

  kernels::NormArgs args(const Case& c) const {
    char* vector = static_cast<char*>(vectors.data);
    const size_t row_bytes = static_cast<size_t>(c.width) * dtype_bytes(c.dtype);
    kernels::NormArgs args{.element = kernel_element(c.dtype),
                           .x = x.data,
                           .bias = vector,
                           .residual = residual.data,
                           .num_rows = c.rows,
                           .width = c.width};
    if (c.has_norm) {
      args.gamma = vector + row_bytes;
      args.beta = vector + 2 * row_bytes;
      args.out = out.data;
    }
    return args;
  }
};

Outcome prepare(const Case& c, int rank, int world, char* place) {
  Outcome o(c, world, place);
  for (int r = 0; r < world; ++r) {
    char* block = static_cast<char*>(o.all.data) + static_cast<size_t>(r) * o.x.bytes();
    const GpuTensor part(c.dtype, o.x.numel, block);
    fill_random(part, c.key + static_cast<uint64_t>(r), static_cast<float>(1 + r));
  }
  fill_random(o.x, c.key + static_cast<uint64_t>(rank), static_cast<float>(1 + rank));
  fill_random(o.residual, c.key + 100, 2);
  fill_random(o.wanted_residual, c.key + 100, 2);
  fill_random(o.vectors, c.key + 101, 1);
  for (const GpuTensor* out : {&o.out, &o.wanted_out}) MUST(cudaMemsetAsync(out->data, 0xcd, out->bytes(), gpu.stream));
  MUST(kernels::sum_ranks(kernel_element(c.dtype), o.all.data, world, o.x.numel, o.sum.data, gpu.stream));
  kernels::NormArgs wanted = o.args(c);
  wanted.x = o.sum.data;
  wanted.residual = o.wanted_residual.data;
  if (c.has_norm) wanted.out = o.wanted_out.data;
  MUST(kernels::add_and_norm(wanted, gpu.stream));
  MUST(cudaStreamSynchronize(gpu.stream));
  return o;
}

// All ranks add: first as a layer does, then alone.
void check_case(GroupOfStreams& group, const Case& c) {
  std::vector<Outcome> outcomes;
  for (int rank = 0; rank < group.world(); ++rank) {
    outcomes.push_back(prepare(c, rank, group.world(), group.enter(rank).memory));
  }
  for (int rank = 0; rank < group.world(); ++rank) {
    const GroupOfStreams::Rank& r = group.enter(rank);
    MUST(kernels::peer_add_and_norm(r.group, outcomes[static_cast<size_t>(rank)].args(c), r.stream, c.how));
  }
  // The norms must have ended before that, since a kernel that waits for the one before it would take the place of
  // other ranks' kernels on the device.
  for (int rank = 0; rank < group.world(); ++rank) MUST(cudaStreamSynchronize(group.enter(rank).stream));
  for (int rank = 0; rank < group.world(); ++rank) {
    const GroupOfStreams::Rank& r = group.enter(rank);
    const Outcome& o = outcomes[static_cast<size_t>(rank)];
    MUST(kernels::peer_sum(r.group, kernel_element(c.dtype), o.x.data, o.x.numel, r.stream));
  }
  for (int rank = 0; rank < group.world(); ++rank) {
    (void)group.enter(rank);
    const Outcome& o = outcomes[static_cast<size_t>(rank)];
    const std::string what = "rank " + std::to_string(rank) + " of " + std::to_string(group.world()) + ", " +
                             std::string(dtype_name(c.dtype)) + " " + std::to_string(c.rows) + " x " +
                             std::to_string(c.width) + ", way " + std::to_string(static_cast<int>(c.how));
    ASSERT_EQ(o.residual.get(), o.wanted_residual.get()) << what;
    ASSERT_EQ(o.out.get(), o.wanted_out.get()) << what;
    ASSERT_EQ(o.x.get(), o.sum.get()) << what;
    ASSERT_EQ(group.of(rank).group.control->gave_up, 0u) << what;
  }
}

// Runs in a child process, which loads all kernels first: loading a kernel may wait for running kernels, which may wait
// for a rank of this process.
void run_in_child(const std::function<void()>& body) {
  if (count_gpus() == 0) GTEST_SKIP() << "no GPU";
  const auto statuses = fork_ranks(RankKind::kProcesses, 1, 1000, [&](Communicator&) {
    setenv("CUDA_MODULE_LOADING", "EAGER", 1);
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1);  // so that no stream waits for another rank's
    body();
  });
  EXPECT_EQ(statuses, std::vector<int>{0});
}

class PeerKernels : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Worlds, PeerKernels, testing::Values(2, 3, 4, 5, 8));

// The kernels of ranks that share a GPU must run on it at the same time, so the sums are small. Some cases need several
// launches.
TEST_P(PeerKernels, GiveTheBitsOfSumsInRankOrder) {
  const auto seed = static_cast<uint64_t>(time(nullptr));
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  run_in_child([seed, world = GetParam()] {
    std::mt19937_64 draw(seed);
    GroupOfStreams group(world, int64_t{512} << 10);
    for (int i = 0; i < 200 && !testing::Test::HasFailure(); ++i) {
      Case c{std::array{DType::kF16, DType::kBF16, DType::kF32}[draw() % 3],
             1,
             8,
             draw() % 4 != 0,
             std::array{PeerRows::kFastest, PeerRows::kOneRound, PeerRows::kTwoRounds}[draw() % 3],
             draw()};
      c.width = static_cast<int64_t>(1 + draw() % (c.dtype == DType::kF32 ? 768 : 1536)) * 8;
      if (c.dtype == DType::kF32 && draw() % 2 == 0) c.width -= 4;
      c.rows = static_cast<int64_t>(draw() % 16) % std::max<int64_t>(1, 32'768 / c.width) + 1;
      check_case(group, c);
    }
  });
}

Tensor host_tensor(std::vector<uint8_t>& bytes, DType dtype) {
  return Tensor(bytes.data(), dtype, {static_cast<int64_t>(bytes.size() / dtype_bytes(dtype))});
}

// Sums over host memory, the reference for PeerMemory::create.
void sum_on_host(Communicator& control, const Tensor& x) {
  std::vector<uint8_t> host(x.bytes());
  MUST(cudaMemcpyAsync(host.data(), x.raw(), host.size(), cudaMemcpyDeviceToHost, gpu.stream));
  MUST(cudaStreamSynchronize(gpu.stream));
  control.all_reduce_sum(host_tensor(host, x.dtype()));
  MUST(cudaMemcpyAsync(x.raw(), host.data(), host.size(), cudaMemcpyHostToDevice, gpu.stream));
  MUST(cudaStreamSynchronize(gpu.stream));
}

struct Started {
  std::unique_ptr<PeerMemory> memory;
  std::string cause;
};

Started start(Communicator& control, const std::function<void(PeerMemoryOptions&)>& change,
              const PeerMemory::Reference& reference) {
  gpu.index = control.rank() % count_gpus();
  MUST(cudaSetDevice(gpu.index));
  MUST(cudaStreamCreateWithFlags(&gpu.stream, cudaStreamNonBlocking));
  PeerMemoryOptions options{gpu.index, gpu.stream, 1'000, allocate_on_gpu, allocate_on_host};
  if (change) change(options);
  Started started;
  started.memory = PeerMemory::create(control, options, reference, started.cause);
  return started;
}

void run_pair(const RankBody& body) {
  if (count_gpus() < 2) GTEST_SKIP() << "needs two GPUs";
  EXPECT_EQ(fork_ranks(RankKind::kProcesses, 2, 60'000, body), (std::vector<int>{0, 0}));
}

TEST(PeerMemory, StartsWhereSumsAreRight) {
  run_pair([](Communicator& control) {
    const Started started = start(control, {}, [&](const Tensor& x) { sum_on_host(control, x); });
    ASSERT_NE(started.memory, nullptr) << started.cause;
    EXPECT_EQ(started.memory->given_up(), "");
  });
}

// The reason that one rank gives is reported to every rank.
TEST(PeerMemory, IsGivenUpByAllWhereOneRankSeesAnotherSum) {
  run_pair([](Communicator& control) {
    const Started started = start(control, {}, [&](const Tensor& x) {
      sum_on_host(control, x);
      if (control.rank() == 1) MUST(cudaMemsetAsync(x.raw(), 0x11, 1, gpu.stream));
    });
    EXPECT_EQ(started.memory, nullptr);
    EXPECT_THAT(started.cause, HasSubstr("rank 1: a sum of 1 "));
  });
}

TEST(PeerMemory, IsGivenUpByAllWhereOneRankHasNone) {
  run_pair([](Communicator& control) {
    const auto refuse = [&](PeerMemoryOptions& options) {
      if (control.rank() == 1) options.allocate = [](size_t) -> Buffer { throw Error("no room here"); };
    };
    const Started started = start(control, refuse, [](const Tensor&) { ADD_FAILURE() << "tests nothing"; });
    EXPECT_EQ(started.memory, nullptr);
    EXPECT_THAT(started.cause, HasSubstr("no room here"));
  });
}

// The kernels end when the time limit is over; the kernels after them then end at once.
TEST(PeerMemory, ARankThatDoesNotComeIsToldAtTheLimit) {
  run_pair([](Communicator& control) {
    const Started started = start(control, {}, [&](const Tensor& x) { sum_on_host(control, x); });
    ASSERT_NE(started.memory, nullptr) << started.cause;
    if (control.rank() == 0) {
      const GpuTensor x(DType::kF16, 100'000);
      const auto begin = steady_clock::now();
      for (int i = 0; i < 100; ++i) started.memory->sum(x.view());
      MUST(cudaStreamSynchronize(gpu.stream));
      const auto took = steady_clock::now() - begin;
      EXPECT_GT(took, std::chrono::milliseconds(900));
      EXPECT_LT(took, std::chrono::milliseconds(2'000));
      EXPECT_THAT(started.memory->given_up(), HasSubstr("within 1000 ms"));
    }
    control.barrier();
  });
}

TEST(PeerMemory, StopEndsKernelsThatWait) {
  run_pair([](Communicator& control) {
    const auto patient = [](PeerMemoryOptions& options) { options.timeout_ms = 60'000; };
    const Started started = start(control, patient, [&](const Tensor& x) { sum_on_host(control, x); });
    ASSERT_NE(started.memory, nullptr) << started.cause;
    if (control.rank() == 0) {
      const GpuTensor x(DType::kF16, 100'000);
      started.memory->sum(x.view());
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      EXPECT_EQ(cudaStreamQuery(gpu.stream), cudaErrorNotReady);
      const auto begin = steady_clock::now();
      started.memory->stop();
      MUST(cudaStreamSynchronize(gpu.stream));
      EXPECT_LT(steady_clock::now() - begin, std::chrono::milliseconds(200));
      EXPECT_THAT(started.memory->given_up(), HasSubstr("stopped"));
    }
    control.barrier();
  });
}

}  // namespace nccl_peer_memory_test
}  // namespace optserve::comm
