// Groups with a key, against peers without it, and against somebody between the ranks. Ranks are threads here.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <list>

#include "base/clock.h"
#include "comm/tcp/test_peers.h"

namespace optserve::comm::tcp {
namespace tcp_sealed_test {

using testing::HasSubstr;
using Bytes = std::vector<uint8_t>;

TcpGroupOptions options_of(int port, int rank, int world = 2) { return sealed_options(port, rank, world, 5'000); }
const keys::SecretKey& group_key() { return *options_of(0, 0).key; }

std::future<std::string> join_by(const Clock& clock, const TcpGroupOptions& options) {
  return std::async(std::launch::async,
                    [&clock, options] { return error_of([&] { make_tcp_communicator(options, clock)->barrier(); }); });
}

Accepted accept_one(const Socket& listener) {
  pollfd polled{listener.fd(), POLLIN, 0};
  poll(&polled, 1, 10'000);
  auto accepted = accept_waiting(listener);
  EXPECT_TRUE(accepted.has_value());
  return accepted ? std::move(*accepted) : Accepted{};
}

// Stands between the ranks and keeps all bytes.
class Tap {
 public:
  explicit Tap(int to_port) : to_port_(to_port), listener_(listen_on("127.0.0.1", port_, cause_)) {
    EXPECT_TRUE(listener_.is_open()) << cause_;
    thread_ = std::jthread([this](const std::stop_token& stop) {
      while (!stop.stop_requested()) pass_on();
    });
  }
  int port() const { return port_; }
  // What was said on each connection by who opened it, and by rank 0.
  struct Recording {
    Bytes calls, answers;
  };
  std::vector<Recording> recordings() {
    thread_.request_stop();
    thread_.join();
    std::vector<Recording> result;
    for (const Pair& pair : pairs_) result.push_back(pair.recording);
    return result;
  }

 private:
  struct Pair {
    Socket caller, rank0;
    Recording recording;
  };
  void pass_on() {
    std::vector<pollfd> polled{{listener_.fd(), POLLIN, 0}};
    for (const Pair& pair : pairs_) {
      for (const Socket* socket : {&pair.caller, &pair.rank0}) polled.push_back({socket->fd(), POLLIN, 0});
    }
    poll(polled.data(), polled.size(), 10);
    for (Pair& pair : pairs_) {
      pass(pair.caller, pair.rank0, pair.recording.calls);
      pass(pair.rank0, pair.caller, pair.recording.answers);
    }
    if (auto accepted = accept_waiting(listener_)) {
      Socket rank0 = connect_to("127.0.0.1", to_port_, soon(), cause_);
      if (rank0.is_open()) pairs_.push_back({std::move(accepted->socket), std::move(rank0), {}});
    }
  }
  static void pass(Socket& from, Socket& to, Bytes& kept) {
    std::array<uint8_t, 4096> bytes;
    if (!from.is_open() || !to.is_open()) return;
    const auto received = receive_some(from, bytes);
    if (received < 0) {
      from.reset();
      to.reset();
      return;
    }
    const auto part = std::span(bytes).first(static_cast<size_t>(received));
    kept.insert(kept.end(), part.begin(), part.end());
    send_all(to, part, soon());
  }

  std::string cause_;
  int to_port_, port_ = free_port();
  Socket listener_;
  std::list<Pair> pairs_;
  std::jthread thread_;
};

// What a listener hears of a group of two that passes on one text.
std::vector<Tap::Recording> overheard(TcpGroupOptions options, const std::string& text) {
  auto host = join_later(options, [&](Communicator& comm) {
    Bytes plan(text.begin(), text.end());
    comm.broadcast_bytes(plan, 0);
  });
  Tap tap(options.port);
  options.rank = 1;
  options.port = tap.port();
  EXPECT_EQ(join_later(options,
                       [&](Communicator& comm) {
                         Bytes plan;
                         comm.broadcast_bytes(plan, 0);
                         EXPECT_EQ(std::string(plan.begin(), plan.end()), text);
                       })
                .get(),
            "no error");
  EXPECT_EQ(host.get(), "no error");
  return tap.recordings();
}

bool holds(const std::vector<Tap::Recording>& recordings, std::string_view text) {
  return std::ranges::any_of(recordings, [&](const Tap::Recording& one) {
    return std::ranges::search(one.calls, text).begin() != one.calls.end() ||
           std::ranges::search(one.answers, text).begin() != one.answers.end();
  });
}

TEST(SealedGroup, AListenerReadsNeitherPlansNorNames) {
  const std::string plan = "the plan of step 1";
  const auto plain = overheard(tcp_options(free_port(), 0, 2, 5'000), plan);
  EXPECT_TRUE(holds(plain, plan) && holds(plain, "test")) << "without a key it reads them";
  const auto sealed = overheard(options_of(free_port(), 0), plan);
  EXPECT_FALSE(holds(sealed, plan) || holds(sealed, "test"));
}

TEST(SealedGroup, WhatAListenerHeardIsOfNoUse) {
  auto options = options_of(free_port(), 0);
  const auto recordings = overheard(options, "plan");
  ASSERT_EQ(recordings.size(), 2U);
  options.port = free_port();
  auto host = join_later(options);
  for (const Tap::Recording& recording : recordings) {
    RawPeer peer(options.port);
    peer.say(Bytes(recording.calls.begin(), recording.calls.begin() + kHelloBytes));
    AnswerBytes other;
    std::copy_n(recording.answers.begin(), other.size(), other.begin());
    EXPECT_NE(peer.bytes<AnswerBytes>(), other);
    peer.say(Bytes(recording.calls.begin() + kHelloBytes, recording.calls.end()));
    EXPECT_TRUE(peer.is_closed_after_refusal());
  }
  EXPECT_EQ(join_later(options_of(options.port, 1)).get(), "no error");
  EXPECT_EQ(host.get(), "no error");
}

TEST(SealedGroup, WhoHasNoKeyOrAnotherOneIsRefused) {
  const int port = free_port();
  auto host = join_later(options_of(port, 0));
  EXPECT_THAT(join_later(tcp_options(port, 1, 2, 5'000)).get(), HasSubstr("it offers no key, but the group has one"));
  TcpGroupOptions other = options_of(port, 1);
  other.key = std::make_shared<const keys::SecretKey>(keys::new_secret_key());
  EXPECT_THAT(join_later(other).get(), HasSubstr("it has no key of the group, or another one than this rank"));
  EXPECT_EQ(join_later(options_of(port, 1)).get(), "no error");
  EXPECT_EQ(host.get(), "no error");
}

TEST(SealedGroup, ARankWithAKeyTrustsNoRank0WithoutIt) {
  const int port = free_port();
  auto host = join_later(tcp_options(port, 0, 2, 5'000));
  EXPECT_THAT(join_later(options_of(port, 1)).get(), HasSubstr("it has no key of the group, or another one"));
  EXPECT_EQ(join_later(tcp_options(port, 1, 2, 5'000)).get(), "no error");
  EXPECT_EQ(host.get(), "no error");
}

TEST(SealedGroup, EveryByteThatARankSaysFirstCounts) {
  const int port = free_port();
  auto host = join_later(options_of(port, 0));
  for (size_t at = 0; at < kHelloBytes; ++at) {
    RawPeer peer(port);
    const keys::Caller caller(group_key());
    HelloBytes call = encode(Call{caller.offer()});
    call[at] ^= 0x10;
    peer.say(call);
    EXPECT_EQ(peer.answer().kind, Answer::Kind::kRefused) << at;
  }
  for (size_t at = 0; at < kHelloBytes + keys::kSealBytes; ++at) {
    RawPeer peer(port);
    peer.exchange_offers(group_key());
    Bytes hello = peer.wire(encode(hello_of(1, 2)));
    hello[at] ^= 0x10;
    peer.say_raw(hello);
    EXPECT_EQ(peer.answer().kind, Answer::Kind::kRefused) << at;
  }
  EXPECT_EQ(join_later(options_of(port, 1)).get(), "no error");
  EXPECT_EQ(host.get(), "no error");
}

// What rank 1 throws if this byte of rank 0's first two records is changed on the way.
std::string error_of_changed_answer(size_t at) {
  FakeClock clock;
  const int port = free_port();
  std::string cause;
  const Socket listener = listen_on("127.0.0.1", port, cause);
  EXPECT_TRUE(listener.is_open()) << cause;
  auto rank = join_by(clock, options_of(port, 1));
  Link link(accept_one(listener).socket);
  HelloBytes bytes;
  EXPECT_EQ(link.receive(bytes, soon()), Io::kDone);
  const auto answered = keys::answer_offer(group_key(), decode_call(bytes).value().offer);
  AnswerBytes answer = encode(CallAnswer{answered->answer});
  if (at < answer.size()) answer[at] ^= 0x10;
  EXPECT_EQ(link.send(answer, soon()), Io::kDone);
  if (at < answer.size()) return rank.get();
  link.seal(answered->stream);
  EXPECT_EQ(link.receive(bytes, soon()), Io::kDone);
  EXPECT_EQ(decode_hello(bytes).value().rank, 1);
  Bytes seated;
  link.append(encode(Answer{}), seated);
  seated[at - answer.size()] ^= 0x10;
  EXPECT_EQ(send_all(link.socket(), seated, soon()), Io::kDone);
  uint8_t byte;
  EXPECT_EQ(receive_all(link.socket(), std::span(&byte, 1), soon()), Io::kClosed) << "rank 1 gives up this connection";
  clock.advance(seconds(100));
  return rank.get();
}

TEST(SealedGroup, EveryByteThatRank0AnswersCounts) {
  for (size_t at = 0; at < kAnswerBytes; ++at) {
    EXPECT_THAT(error_of_changed_answer(at), HasSubstr("refuses rank 1: ")) << at;
  }
  for (size_t at = 0; at < kAnswerBytes + keys::kSealBytes; at += 51) {
    EXPECT_THAT(error_of_changed_answer(kAnswerBytes + at), HasSubstr("did not meet its group")) << at;
  }
}

TEST(SealedGroup, WhoSaysNothingIsClosedAfterSeconds) {
  FakeClock clock;
  const int port = free_port();
  TcpGroupOptions options = options_of(port, 0);
  options.meet_timeout_ms = 60'000;
  auto host = join_by(clock, options);
  RawPeer silent(port), called(port);
  called.exchange_offers(group_key());
  while (host.wait_for(milliseconds(0)) != std::future_status::ready && !silent.has_ended()) clock.advance(seconds(1));
  EXPECT_TRUE(silent.is_closed_by_peer());
  EXPECT_TRUE(called.is_closed_by_peer());
  clock.advance(seconds(60));
  EXPECT_THAT(host.get(), HasSubstr("rank(s) 1 did not come"));
}

TEST(SealedGroup, ARankThatIsTakenIsNotGivenAway) {
  const int port = free_port();
  auto host = join_later(options_of(port, 0));
  RawPeer first(port), second(port);
  PlayedRank::introduce(first, Channel::kData, &group_key());
  second.exchange_offers(group_key());
  second.say(encode(hello_of(1, 2)));
  const Answer answer = second.answer();
  EXPECT_EQ(answer.kind, Answer::Kind::kTryAgain);
  EXPECT_THAT(answer.text, HasSubstr("rank 1 is already here, from 127.0.0.1:"));
  first = RawPeer(port);
  EXPECT_EQ(join_later(options_of(port, 1)).get(), "no error");
  EXPECT_EQ(host.get(), "no error");
}

// The connections of a host that floods drive out each other, and not those of other hosts.
TEST(SealedGroup, AFloodDrivesOutItself) {
  FakeClock clock;  // stands, so nobody is closed because of the time
  const int port = free_port();
  auto host = join_by(clock, options_of(port, 0));
  RawPeer slow(port);
  std::vector<Socket> flood;
  for (int i = 0; i < 500; ++i) {
    Socket socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    inet_pton(AF_INET, "127.0.0.2", &address.sin_addr);
    ASSERT_EQ(bind(socket.fd(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    address.sin_port = htons(static_cast<uint16_t>(port));
    ASSERT_EQ(connect(socket.fd(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    flood.push_back(std::move(socket));
  }
  uint8_t byte;
  EXPECT_EQ(receive_all(flood[300], std::span(&byte, 1), soon()), Io::kClosed);  // so 428 or more were accepted
  PlayedRank::introduce(slow, Channel::kData, &group_key());
  slow = RawPeer(port);
  EXPECT_EQ(join_later(options_of(port, 1)).get(), "no error");
  EXPECT_EQ(host.get(), "no error");
}

std::string error_after_sealed(const std::function<void(PlayedRank&)>& say, const RankBody& body = {}) {
  return error_after(options_of(free_port(), 0), say, body);
}
HeaderBytes barrier(const PlayedRank& rank) { return encode(FrameHeader{Operation::kBarrier, 0, rank.token, 0, 0}); }

constexpr const char* kForged = "what came from rank 1 was changed, repeated, left out or sent by somebody else";

TEST(SealedFrames, AreReadAsTheyWereSealed) {
  EXPECT_EQ(error_after_sealed([](PlayedRank& rank) { rank.data.say(barrier(rank)); }), "no error");
}

TEST(SealedFrames, ThatAreChangedEndTheGroup) {
  for (size_t at = 0; at < kHeaderBytes + keys::kSealBytes; at += 5) {
    EXPECT_THAT(error_after_sealed([at](PlayedRank& rank) {
                  Bytes bytes = rank.data.wire(barrier(rank));
                  bytes[at] ^= 1;
                  rank.data.say_raw(bytes);
                }),
                HasSubstr(kForged));
  }
}

TEST(SealedFrames, ThatAreRepeatedOrLeftOutEndTheGroup) {
  EXPECT_THAT(error_after_sealed(
                  [](PlayedRank& rank) {
                    const Bytes bytes = rank.data.wire(barrier(rank));
                    rank.data.say_raw(bytes);
                    rank.data.say_raw(bytes);
                  },
                  [](Communicator& comm) { comm.barrier(); }),
              HasSubstr(kForged));
  EXPECT_THAT(error_after_sealed([](PlayedRank& rank) {
                rank.data.wire(barrier(rank));
                rank.data.say_raw(rank.data.wire(barrier(rank)));
              }),
              HasSubstr(kForged));
}

TEST(SealedFrames, InClearTextOrOfTheOtherConnectionEndTheGroup) {
  EXPECT_THAT(error_after_sealed([](PlayedRank& rank) {
                Bytes bytes(kHeaderBytes + keys::kSealBytes);
                std::ranges::copy(barrier(rank), bytes.begin());
                rank.data.say_raw(bytes);
              }),
              HasSubstr(kForged));
  EXPECT_THAT(error_after_sealed([](PlayedRank& rank) { rank.data.say_raw(rank.lifeline->wire(barrier(rank))); }),
              HasSubstr(kForged));
}

TEST(SealedFrames, OfALifelineAreHeldToTheSame) {
  const auto abort = [](const PlayedRank& rank, size_t size) {
    return encode(FrameHeader{Operation::kAbort, 0, rank.token, 0, size});
  };
  EXPECT_EQ(error_after_sealed([&](PlayedRank& rank) {
              rank.lifeline->say(abort(rank, 12));
              rank.lifeline->say(Bytes(12, 'r'));
            }),
            std::string(12, 'r'));
  EXPECT_THAT(error_after_sealed([&](PlayedRank& rank) {
                rank.lifeline->say(abort(rank, 12));
                rank.lifeline->say_raw(Bytes(12 + keys::kSealBytes, 'r'));
              }),
              HasSubstr("rank 1 sent a record that no rank sends"));
  EXPECT_THAT(error_after_sealed([](PlayedRank& rank) { rank.lifeline->say_raw(Bytes(100, 'x')); }),
              HasSubstr("rank 1 sent a record that no rank sends"));
}

TEST(SealedFrames, ThatEndInTheMiddleAreADeath) {
  const auto options = options_of(free_port(), 0);
  auto host = join_later(options);
  {
    PlayedRank rank(options.port, &group_key());
    const Bytes bytes = rank.data.wire(barrier(rank));
    rank.data.say_raw(Bytes(bytes.begin(), bytes.begin() + 20));
  }
  EXPECT_THAT(host.get(), HasSubstr("rank 1 died"));
}

TEST(SealedFrames, MayBeLongerThanAPiece) {
  run_ranks(RankKind::kSealedTcp, 3, [](Communicator& comm) {
    std::vector<float> x(300'001);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 1000) + static_cast<float>(comm.rank());
    const auto size = static_cast<int64_t>(x.size());
    comm.broadcast(Tensor(x.data(), DType::kF32, {size}), 1);
    comm.all_reduce_sum(Tensor(x.data(), DType::kF32, {size}));
    for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(x[i], 3 * (static_cast<float>(i % 1000) + 1)) << i;
  });
}

}  // namespace tcp_sealed_test
}  // namespace optserve::comm::tcp
