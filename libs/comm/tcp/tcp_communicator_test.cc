// The rendezvous and the frames of TCP groups, against peers that break the rules. Ranks are threads here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <cmath>
#include <future>

#include "base/error.h"
#include "base/limits.h"
#include "comm/tcp/test_peers.h"

namespace optserve::comm::tcp {
namespace tcp_communicator_test {

using testing::HasSubstr;

TEST(TcpRendezvous, RanksComeInAnyOrder) {
  const int port = free_port();
  std::vector<std::future<std::string>> ranks;
  for (const int rank : {2, 0, 1}) {
    ranks.push_back(join_later(tcp_options(port, rank, 3, 5'000)));
    std::this_thread::sleep_for(milliseconds(50));
  }
  for (auto& rank : ranks) EXPECT_EQ(rank.get(), "no error");
}

TEST(TcpRendezvous, MissingRanksAreNamed) {
  TcpGroupOptions options = tcp_options(free_port(), 0, 4, 5'000);
  options.meet_timeout_ms = 500;
  auto host = join_later(options);
  options.rank = 2;
  options.meet_timeout_ms = 700;
  EXPECT_THAT(error_of([&] { make_tcp_communicator(options, system_clock()); }),
              HasSubstr("rank 2 did not meet its group at 127.0.0.1:"));
  EXPECT_THAT(host.get(), HasSubstr("rank(s) 1, 3 did not come to 127.0.0.1:"));
}

TEST(TcpRendezvous, WaitsByTheClockThatItIsGiven) {
  FakeClock clock;
  const std::jthread time([&clock](const std::stop_token& stop) {
    for (; !stop.stop_requested(); std::this_thread::sleep_for(milliseconds(10))) clock.advance(seconds(7'200));
  });
  TcpGroupOptions options = tcp_options(free_port(), 0, 2, 5'000);
  options.meet_timeout_ms = 3'600'000;
  EXPECT_THAT(error_of([&] { make_tcp_communicator(options, clock); }),
              HasSubstr("rank(s) 1 did not come to 127.0.0.1:"));
}

TEST(TcpRendezvous, ARankOfAnotherGroupIsRefusedByName) {
  const int port = free_port();
  auto host = join_later(tcp_options(port, 0, 2, 5'000));
  TcpGroupOptions wrong = tcp_options(port, 1, 2, 5'000);
  wrong.group = "opt-66b on cuda";
  EXPECT_THAT(error_of([&] { make_tcp_communicator(wrong, system_clock()); }),
              HasSubstr("refuses rank 1: expected group 'test', found 'opt-66b on cuda'"));
  EXPECT_THAT(error_of([&] { make_tcp_communicator(tcp_options(port, 1, 4, 5'000), system_clock()); }),
              HasSubstr("expected a group of 2, found 4"));
  EXPECT_EQ(join_later(tcp_options(port, 1, 2, 5'000)).get(), "no error");
  EXPECT_EQ(host.get(), "no error");
}

TEST(TcpRendezvous, ConnectionsOfStrangersHurtNobody) {
  const int port = free_port();
  auto host = join_later(tcp_options(port, 0, 2, 5'000));
  RawPeer silent(port), gone(port), web(port);
  gone = RawPeer(port);
  web.say(std::vector<uint8_t>(1000, 'G'));
  EXPECT_TRUE(web.is_closed_by_peer());
  HelloBytes impossible = encode(hello_of(1, 2));
  impossible[16] = 200;  // rank
  RawPeer liar(port);
  liar.say(impossible);
  EXPECT_TRUE(liar.is_closed_by_peer());
  RawPeer lifeline(port, hello_of(1, 2, Channel::kLifeline));  // of a rank that is not here
  EXPECT_EQ(lifeline.answer().kind, Answer::Kind::kTryAgain);
  EXPECT_EQ(RawPeer(port, hello_of(0, 2)).answer().kind, Answer::Kind::kRefused);
  EXPECT_EQ(join_later(tcp_options(port, 1, 2, 5'000)).get(), "no error");
  EXPECT_EQ(host.get(), "no error");
}

// A rank is started again before its group is complete, and two hosts believe that they are the same rank.
TEST(TcpRendezvous, ASeatIsFreeAgainWhenItsRankDied) {
  const int port = free_port();
  auto host = join_later(tcp_options(port, 0, 2, 5'000));
  auto first = std::make_unique<RawPeer>(port, hello_of(1, 2));
  EXPECT_EQ(first->answer().kind, Answer::Kind::kSeated);
  {
    RawPeer second(port, hello_of(1, 2));
    const Answer answer = second.answer();
    EXPECT_EQ(answer.kind, Answer::Kind::kTryAgain);
    EXPECT_THAT(answer.text, HasSubstr("rank 1 is already here, from 127.0.0.1:"));
  }
  auto third = join_later(tcp_options(port, 1, 2, 5'000));
  EXPECT_EQ(third.wait_for(milliseconds(300)), std::future_status::timeout);
  first.reset();
  EXPECT_EQ(third.get(), "no error");
  EXPECT_EQ(host.get(), "no error");
}

// Rank 0 is replaced while rank 1 waits for the others. Rank 1 goes on waiting, now with the new rank 0.
TEST(TcpRendezvous, RanksWaitForANewRank0) {
  const int port = free_port();
  TcpGroupOptions impatient = tcp_options(port, 0, 3, 5'000);
  impatient.meet_timeout_ms = 300;
  auto rank1 = join_later(tcp_options(port, 1, 3, 5'000));
  EXPECT_THAT(join_later(impatient).get(), HasSubstr("did not come"));
  auto rank0 = join_later(tcp_options(port, 0, 3, 5'000));
  EXPECT_EQ(join_later(tcp_options(port, 2, 3, 5'000)).get(), "no error");
  EXPECT_EQ(rank1.get(), "no error");
  EXPECT_EQ(rank0.get(), "no error");
}

TEST(TcpRendezvous, TheInterfaceOfTheGroupIsFound) {
  EXPECT_EQ(interface_towards("127.0.0.1", 29'500), "lo");
  EXPECT_EQ(interface_towards("no-such-host.invalid", 29'500), "");
}

TEST(TcpRendezvous, RankZeroSaysWhyItCannotListen) {
  TcpGroupOptions options = tcp_options(free_port(), 0, 2, 5'000);
  options.host = "192.0.2.1";  // reserved for documentation: nobody's address
  options.meet_timeout_ms = 200;
  EXPECT_THAT(error_of([&] { make_tcp_communicator(options, system_clock()); }),
              HasSubstr("must be an address of its host"));
  options.rank = 1;
  options.host = "no-such-host.invalid";
  EXPECT_THAT(error_of([&] { make_tcp_communicator(options, system_clock()); }), HasSubstr("cannot be resolved"));
}

TEST(TcpFrames, OfAnotherStartEndTheGroup) {
  EXPECT_EQ(error_after([](PlayedRank& rank) {
              rank.data.say(encode(FrameHeader{Operation::kBarrier, 0, rank.token, 0, 0}));
            }),
            "no error");
  EXPECT_THAT(error_after([](PlayedRank& rank) {
                rank.data.say(encode(FrameHeader{Operation::kBarrier, 0, rank.token + 1, 0, 0}));
              }),
              HasSubstr("rank 1 sends frames of another start of the group (barrier)"));
}

TEST(TcpFrames, ThatAreTooLargeAreRefusedBeforeAnythingIsAllocated) {
  const auto receive = [](Communicator& comm) {
    std::vector<uint8_t> bytes;
    comm.broadcast_bytes(bytes, 1);
  };
  const auto say = [](PlayedRank& rank) {
    const uint64_t size = uint64_t{1} << 60;
    rank.data.say(encode(FrameHeader{Operation::kBytes, 1, rank.token, size, size}));
  };
  EXPECT_THAT(error_after(say, receive), HasSubstr("bytes, at most " + std::to_string(limits::kGroupMessageBytesMax)));
  EXPECT_THAT(error_after([](PlayedRank& rank) {
                rank.lifeline->say(encode(FrameHeader{Operation::kAbort, 0, rank.token, 0, 1 << 20}));
              }),
              HasSubstr("rank 1 sent a record that no rank sends"));
}

TEST(TcpFrames, ThatAreGarbageEndTheGroup) {
  const std::vector<uint8_t> garbage(100, 'x');
  EXPECT_THAT(error_after([&](PlayedRank& rank) { rank.data.say(garbage); }),
              HasSubstr("rank 1 sends a malformed frame"));
  EXPECT_THAT(error_after([&](PlayedRank& rank) { rank.lifeline->say(garbage); }),
              HasSubstr("rank 1 sent a record that no rank sends"));
}

TEST(TcpFrames, ThatEndInTheMiddleAreADeath) {
  const int port = free_port();
  auto host = join_later(tcp_options(port, 0, 2, 5'000));
  {
    PlayedRank rank(port);
    rank.data.say(std::vector<uint8_t>(5, 'f'));
  }
  EXPECT_THAT(host.get(), HasSubstr("rank 1 died"));
}

TEST(TcpCommunicator, SumsMoreThanOneChunk) {
  run_ranks(RankKind::kTcp, 3, [](Communicator& comm) {
    std::vector<float> x(300'001), out(3 * x.size());
    for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i) + static_cast<float>(comm.rank()));
    const auto value = [](size_t i, int rank) { return std::sin(static_cast<float>(i) + static_cast<float>(rank)); };
    const auto size = static_cast<int64_t>(x.size());
    comm.all_gather(Tensor(x.data(), DType::kF32, {size}), Tensor(out.data(), DType::kF32, {3, size}));
    comm.all_reduce_sum(Tensor(x.data(), DType::kF32, {size}));
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(x[i], value(i, 0) + value(i, 1) + value(i, 2)) << i;
      for (int rank = 0; rank < 3; ++rank) ASSERT_EQ(out[static_cast<size_t>(rank) * x.size() + i], value(i, rank));
    }
  });
}

TEST(TcpCommunicator, ARankThatLeavesIsMissedOnlyWhenItIsNeeded) {
  const int port = free_port();
  std::promise<void> left;
  auto rank0 = join_later(tcp_options(port, 0, 2, 5'000), [&](Communicator& comm) {
    left.get_future().wait();
    comm.throw_if_lost();
  });
  { make_tcp_communicator(tcp_options(port, 1, 2, 5'000), system_clock()); }
  left.set_value();
  EXPECT_THAT(rank0.get(), HasSubstr("rank 1 has left the group (barrier)"));
}

// When a rank hangs in a call of its device, the communicator's thread tells it that its group has ended.
TEST(TcpCommunicator, ARankThatHangsElsewhereIsTold) {
  const int port = free_port();
  std::promise<std::string> told;
  TcpGroupOptions options = tcp_options(port, 1, 2, 5'000);
  options.on_stuck = [&](const std::string& reason) { told.set_value(reason); };
  auto rank0 = join_later(tcp_options(port, 0, 2, 5'000), [](Communicator& comm) { comm.abort("out of paper"); });
  {
    const auto rank1 = make_tcp_communicator(options, system_clock());
    auto reason = told.get_future();
    ASSERT_EQ(reason.wait_for(seconds(5)), std::future_status::ready);
    EXPECT_EQ(reason.get(), "out of paper");
  }
  EXPECT_EQ(rank0.get(), "out of paper");
}

TEST(TcpCommunicator, ARankThatLetsGoInTimeIsNotTold) {
  const int port = free_port();
  std::atomic<bool> told{false};
  TcpGroupOptions options = tcp_options(port, 1, 2, 5'000);
  options.on_stuck = [&](const std::string&) { told = true; };
  auto rank0 = join_later(tcp_options(port, 0, 2, 5'000), [](Communicator& comm) { comm.abort("out of paper"); });
  EXPECT_EQ(join_later(options).get(), "out of paper");
  EXPECT_EQ(rank0.get(), "out of paper");
  EXPECT_FALSE(told.load());
}

}  // namespace tcp_communicator_test
}  // namespace optserve::comm::tcp
