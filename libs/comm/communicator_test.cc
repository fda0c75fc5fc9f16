#include "comm/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "comm/run_ranks.h"

namespace optserve::comm {
namespace communicator_test {

using testing::HasSubstr;

struct Group {
  RankKind kind;
  int world;
};

class CommunicatorTest : public testing::TestWithParam<Group> {
 protected:
  void run(const RankBody& body) { run_ranks(GetParam().kind, GetParam().world, body); }
};

INSTANTIATE_TEST_SUITE_P(
    Groups, CommunicatorTest,
    testing::Values(Group{RankKind::kSolo, 1}, Group{RankKind::kThreads, 1}, Group{RankKind::kThreads, 2},
                    Group{RankKind::kThreads, 4}, Group{RankKind::kProcesses, 1}, Group{RankKind::kProcesses, 2},
                    Group{RankKind::kProcesses, 4}, Group{RankKind::kTcp, 1}, Group{RankKind::kTcp, 2},
                    Group{RankKind::kTcp, 4}, Group{RankKind::kSealedTcp, 2}, Group{RankKind::kSealedTcp, 4}),
    [](const auto& group) { return rank_kind_name(group.param.kind) + std::to_string(group.param.world); });

// A value whose sum over ranks depends on the order of addition.
float value_of(int rank, int64_t i) {
  return std::sin(static_cast<float>(i + 1) * 0.37f) * std::pow(10.0f, static_cast<float>((rank * 7 + i) % 9 - 4));
}

Tensor view(std::vector<float>& values) {
  return Tensor(values.data(), DType::kF32, {static_cast<int64_t>(values.size())});
}

TEST_P(CommunicatorTest, SumsInRankOrderOnEveryRank) {
  run([](Communicator& comm) {
    for (const int64_t size : {1, 3, 1000, 65536, 200'001}) {
      std::vector<float> x(static_cast<size_t>(size)), expected(x.size());
      for (int64_t i = 0; i < size; ++i) {
        float sum = value_of(0, i);
        for (int rank = 1; rank < comm.world(); ++rank) sum += value_of(rank, i);
        expected[static_cast<size_t>(i)] = sum;
        x[static_cast<size_t>(i)] = value_of(comm.rank(), i);
      }
      comm.all_reduce_sum(view(x));
      ASSERT_EQ(std::memcmp(x.data(), expected.data(), x.size() * sizeof(float)), 0) << size << " elements";
    }
  });
}

TEST_P(CommunicatorTest, SumsHalfPrecisionWithOneRounding) {
  run([](Communicator& comm) {
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      std::vector<float> mine(1500), sum(mine.size());
      std::vector<uint16_t> x(mine.size()), expected(mine.size());
      for (int rank = 0; rank < comm.world(); ++rank) {
        for (size_t i = 0; i < sum.size(); ++i) {
          const float value = static_cast<float>(static_cast<int>(i) % 37 - 18 + rank) / 16.0f;  // exact in both types
          sum[i] += value;
          if (rank == comm.rank()) mine[i] = value;
        }
      }
      convert_from_f32(mine.data(), dtype, x.data(), x.size());
      convert_from_f32(sum.data(), dtype, expected.data(), x.size());
      comm.all_reduce_sum(Tensor(x.data(), dtype, {static_cast<int64_t>(x.size())}));
      ASSERT_EQ(x, expected);
    }
  });
}

TEST_P(CommunicatorTest, GathersInRankOrder) {
  run([](Communicator& comm) {
    for (const int64_t size : {1, 77, 150'000}) {
      std::vector<float> x, out(static_cast<size_t>(size * comm.world()));
      for (int64_t i = 0; i < size; ++i) x.push_back(value_of(comm.rank(), i));
      comm.all_gather(view(x), view(out));
      for (int rank = 0; rank < comm.world(); ++rank) {
        for (int64_t i = 0; i < size; ++i) ASSERT_EQ(out[static_cast<size_t>(rank * size + i)], value_of(rank, i));
      }
    }
  });
}

TEST_P(CommunicatorTest, FindsTheSmallestNumberOfAllRanks) {
  run([](Communicator& comm) {
    for (int smallest = 0; smallest < comm.world(); ++smallest) {
      const int64_t value = comm.rank() == smallest ? -(int64_t{1} << 40) : int64_t{1} << 41;
      ASSERT_EQ(comm.all_reduce_min(value), -(int64_t{1} << 40)) << "rank " << smallest << " has the smallest";
    }
  });
}

TEST_P(CommunicatorTest, BroadcastsFromAnyRank) {
  run([](Communicator& comm) {
    for (int root = 0; root < comm.world(); ++root) {
      std::vector<int32_t> ids(100'000, comm.rank());
      comm.broadcast(Tensor(ids.data(), DType::kI32, {static_cast<int64_t>(ids.size())}), root);
      ASSERT_EQ(ids, std::vector<int32_t>(ids.size(), root));
      for (const size_t size : {0u, 1u, 5000u, 700'000u}) {
        std::vector<uint8_t> bytes(comm.rank() == root ? size : 13, static_cast<uint8_t>(comm.rank() + 1));
        comm.broadcast_bytes(bytes, root);
        ASSERT_EQ(bytes, std::vector<uint8_t>(size, static_cast<uint8_t>(root + 1)));
      }
    }
  });
}

// Different operations follow each other while ranks pause at random, to detect a buffer that is reused too early.
TEST_P(CommunicatorTest, SurvivesStragglers) {
  run([](Communicator& comm) {
    uint64_t delay = 88172645463325252ull * static_cast<uint64_t>(comm.rank() + 1);
    for (int round = 0; round < 300; ++round) {
      delay ^= delay << 13, delay ^= delay >> 7, delay ^= delay << 17;
      if (delay % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(delay % 500));
      const int root = round % comm.world();
      std::vector<uint8_t> bytes(static_cast<size_t>(round), static_cast<uint8_t>(comm.rank() == root ? round : 0));
      comm.broadcast_bytes(bytes, root);
      ASSERT_EQ(bytes, std::vector<uint8_t>(static_cast<size_t>(round), static_cast<uint8_t>(round)));
      std::vector<float> x(64, static_cast<float>(round + comm.rank()));
      comm.all_reduce_sum(view(x));
      const int ranks_sum = comm.world() * (comm.world() - 1) / 2;
      ASSERT_EQ(x[63], static_cast<float>(round * comm.world() + ranks_sum));
      if (round % 7 == 0) comm.barrier();
      std::vector<int32_t> id{comm.rank() == root ? round : -1};
      comm.broadcast(Tensor(id.data(), DType::kI32, {1}), root);
      ASSERT_EQ(id[0], round);
    }
  });
}

TEST_P(CommunicatorTest, AbortReachesEveryRank) {
  run([](Communicator& comm) {
    try {
      comm.barrier();
      if (comm.rank() == comm.world() - 1) comm.abort("the disk is on fire");
      std::vector<float> x(10);
      for (int i = 0; i < 100; ++i) comm.all_reduce_sum(view(x));
      FAIL() << "no rank may go on";
    } catch (const Error& e) {
      EXPECT_STREQ(e.what(), "the disk is on fire");
    }
    EXPECT_THROW(comm.barrier(), Error);
  });
}

TEST_P(CommunicatorTest, AskingWhetherTheGroupIsLostWaitsForNothing) {
  run([](Communicator& comm) {
    comm.throw_if_lost();
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    const auto ask_until_lost = [&] {
      comm.barrier();
      if (comm.rank() == comm.world() - 1) comm.abort("lost");
      while (std::chrono::steady_clock::now() < until) {
        comm.throw_if_lost();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    };
    EXPECT_THROW(ask_until_lost(), Error);
  });
}

// Groups of processes in which one rank can die or hang while the others go on.
class ProcessRanks : public testing::TestWithParam<RankKind> {
 protected:
  std::vector<int> fork_group(int world, int timeout_ms, const RankBody& body) {
    return fork_ranks(GetParam(), world, timeout_ms, body);
  }

  static void sleep_until_lost(Communicator& comm) {
    try {
      for (;;) {
        comm.throw_if_lost();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    } catch (const Error&) {
    }
  }

  // Every surviving rank throws soon, whatever operation it waits in, and says which rank was missing.
  void expect_survivors_throw(int signal, int timeout_ms, const std::string& expected,
                              const std::function<void(Communicator&)>& operation) {
    const auto start = std::chrono::steady_clock::now();
    const auto statuses = fork_group(4, timeout_ms, [&](Communicator& comm) {
      if (comm.rank() == 2) {
        comm.barrier();
        if (signal != 0) raise(signal);
        sleep_until_lost(comm);  // alive, but late
        return;
      }
      try {
        comm.barrier();
        for (;;) operation(comm);
      } catch (const Error& e) {
        EXPECT_THAT(e.what(), HasSubstr(expected));
      }
    });
    EXPECT_EQ(statuses, (std::vector<int>{0, 0, signal == 0 ? 0 : 128 + signal, 0}));
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  }
};

INSTANTIATE_TEST_SUITE_P(Groups, ProcessRanks,
                         testing::Values(RankKind::kProcesses, RankKind::kTcp, RankKind::kSealedTcp),
                         [](const auto& kind) { return rank_kind_name(kind.param); });

TEST_P(ProcessRanks, AKilledRankEndsCollectives) {
  expect_survivors_throw(SIGKILL, 60'000, "rank 2 died", [](Communicator& comm) {
    std::vector<float> x(1000);
    comm.all_reduce_sum(view(x));
  });
}

TEST_P(ProcessRanks, AKilledRankEndsAnIdleWait) {
  expect_survivors_throw(SIGKILL, 60'000, "rank 2 died", [](Communicator& comm) {
    std::vector<uint8_t> bytes;
    comm.broadcast_bytes(bytes, 2);
  });
  expect_survivors_throw(SIGKILL, 60'000, "rank 2 died", [](Communicator& comm) { comm.barrier(); });
}

TEST_P(ProcessRanks, AKilledRankIsSeenByRanksThatWaitForSomethingElse) {
  expect_survivors_throw(SIGKILL, 60'000, "rank 2 died", [](Communicator& comm) {
    comm.throw_if_lost();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
}

TEST_P(ProcessRanks, ALateRankEndsCollectivesAfterTheTimeout) {
  expect_survivors_throw(0, 300, "rank 2 did not come within 300 ms", [](Communicator& comm) {
    std::vector<float> x(1000);
    comm.all_reduce_sum(view(x));
  });
}

TEST_P(ProcessRanks, AnIdleGroupWaitsPastTheTimeout) {
  EXPECT_EQ(fork_group(2, 50,
                       [](Communicator& comm) {
                         if (comm.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(300));
                         std::vector<uint8_t> bytes{7};
                         comm.broadcast_bytes(bytes, 0);
                         EXPECT_EQ(bytes, std::vector<uint8_t>{7});
                       }),
            (std::vector<int>{0, 0}));
}

TEST_P(ProcessRanks, DifferentCallsAreNoticed) {
  const auto expect_noticed = [&](const std::function<void(Communicator&)>& differ) {
    EXPECT_EQ(fork_group(2, 5000,
                         [&](Communicator& comm) {
                           try {
                             differ(comm);
                             comm.barrier();
                             ADD_FAILURE() << "the calls differ";
                           } catch (const Error& e) {
                             EXPECT_THAT(e.what(), HasSubstr("another operation or size"));
                           }
                         }),
              (std::vector<int>{0, 0}));
  };
  expect_noticed([](Communicator& comm) {
    std::vector<float> x(comm.rank() == 0 ? 10 : 11);
    comm.all_reduce_sum(view(x));
  });
  expect_noticed([](Communicator& comm) {
    std::vector<float> x(10);
    if (comm.rank() == 0) comm.broadcast(view(x), 0);
    if (comm.rank() == 1) comm.all_reduce_sum(view(x));
  });
}

TEST(ProcessCommunicator, RefusesMemoryOfAnotherGroup) {
  const ProcessGroupMemory memory = create_process_group_memory(2);
  EXPECT_THROW(make_process_communicator(memory, 0, 4, 1000, system_clock()), Error);
  close(memory.fd);
}

TEST(ProcessCommunicator, TimesOutByTheClockThatItIsGiven) {
  const ProcessGroupMemory memory = create_process_group_memory(2);
  FakeClock clock;
  const auto comm = make_process_communicator(memory, 0, 2, 3'600'000, clock);
  const auto late = make_process_communicator(memory, 1, 2, 3'600'000, clock);
  const std::jthread time([&clock](const std::stop_token& stop) {
    for (; !stop.stop_requested(); std::this_thread::sleep_for(milliseconds(10))) clock.advance(seconds(7'200));
  });
  std::vector<float> x(4);
  try {
    comm->all_reduce_sum(view(x));
    ADD_FAILURE() << "rank 1 does not take part";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("rank 1 did not come within 3600000 ms"));
  }
  close(memory.fd);
}

}  // namespace communicator_test
}  // namespace optserve::comm
