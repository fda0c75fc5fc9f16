// For tests of TCP groups: ranks in threads, and peers whose bytes a test sends itself.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "comm/run_ranks.h"
#include "comm/tcp/frames.h"
#include "comm/tcp/link.h"

namespace optserve::comm::tcp {

inline Deadline soon() { return {system_clock(), system_clock().now() + seconds(10)}; }

// The message of the exception that the body throws; empty if it throws none.
inline std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

inline std::future<std::string> join_later(const TcpGroupOptions& options, const RankBody& body = {}) {
  return std::async(std::launch::async, [=] {
    return error_of([&] {
      const auto comm = make_tcp_communicator(options, system_clock());
      if (body) body(*comm);
      comm->barrier();
    });
  });
}

// A peer whose bytes the test sends itself.
class RawPeer {
 public:
  explicit RawPeer(int port) {
    std::string cause;
    const Deadline until = soon();
    while (!link_.is_open() && system_clock().now() < until.at) {
      link_ = Link(connect_to("127.0.0.1", port, until, cause));
      if (!link_.is_open()) std::this_thread::sleep_for(milliseconds(10));
    }
    EXPECT_TRUE(link_.is_open()) << cause;
  }
  RawPeer(int port, const Hello& hello) : RawPeer(port) { say(encode(hello)); }

  // Goes on with an encrypted connection, as a rank with this key does.
  void exchange_offers(const keys::SecretKey& key) {
    const keys::Caller caller(key);
    say(encode(Call{caller.offer()}));
    const auto answer = decode_call_answer(bytes<AnswerBytes>());
    EXPECT_TRUE(answer.ok());
    const auto stream = answer.ok() ? caller.finish(answer.value().offer) : std::nullopt;
    EXPECT_TRUE(stream.has_value());
    if (stream) link_.seal(*stream);
  }

  template <class Bytes>
  void say(const Bytes& bytes) {
    EXPECT_EQ(link_.send(bytes, soon()), Io::kDone);
  }
  // Past what seals.
  template <class Bytes>
  void say_raw(const Bytes& bytes) {
    EXPECT_EQ(send_all(link_.socket(), bytes, soon()), Io::kDone);
  }
  Answer answer() {
    const auto decoded = decode_answer(bytes<AnswerBytes>());
    EXPECT_TRUE(decoded.ok());
    return decoded.ok() ? decoded.value() : Answer{};
  }
  template <class Bytes>
  Bytes bytes() {
    Bytes bytes;
    EXPECT_EQ(link_.receive(bytes, soon()), Io::kDone);
    return bytes;
  }
  // Whether the peer closes, having said no more than a refusal, which may be sealed.
  bool is_closed_after_refusal() {
    std::array<uint8_t, kAnswerBytes + keys::kSealBytes + 1> bytes;
    return receive_all(link_.socket(), bytes, soon()) == Io::kClosed;
  }
  // Whether the connection has ended by now.
  bool has_ended() {
    uint8_t byte;
    return receive_some(link_.socket(), std::span(&byte, 1)) < 0;
  }
  bool is_closed_by_peer() {
    uint8_t byte;
    return receive_all(link_.socket(), std::span(&byte, 1), soon()) == Io::kClosed;
  }
  // The bytes that say() would send.
  template <class Bytes>
  std::vector<uint8_t> wire(const Bytes& bytes) {
    std::vector<uint8_t> sealed;
    link_.append(bytes, sealed);
    return sealed;
  }

 private:
  Link link_;
};

inline Hello hello_of(int rank, int world, Channel channel = Channel::kData) {
  Hello hello;
  hello.channel = channel;
  hello.world = world;
  hello.rank = rank;
  hello.group = "test";
  return hello;
}

// Rank 1 of a group of two, whose messages up to the start the test sends itself.
struct PlayedRank {
  explicit PlayedRank(int port, const keys::SecretKey* key = nullptr) : data(port) {
    introduce(data, Channel::kData, key);
    lifeline = std::make_unique<RawPeer>(port);
    introduce(*lifeline, Channel::kLifeline, key);
    const Answer start = data.answer();
    EXPECT_EQ(start.kind, Answer::Kind::kStart);
    token = start.token;
  }
  static void introduce(RawPeer& peer, Channel channel, const keys::SecretKey* key) {
    if (key != nullptr) peer.exchange_offers(*key);
    peer.say(encode(hello_of(1, 2, channel)));
    EXPECT_EQ(peer.answer().kind, Answer::Kind::kSeated);
  }
  RawPeer data;
  std::unique_ptr<RawPeer> lifeline;
  uint64_t token = 0;
};

// What rank 0 throws in its barrier when rank 1 says something.
inline std::string error_after(const TcpGroupOptions& rank0, const std::function<void(PlayedRank&)>& say,
                               const RankBody& body = {}) {
  auto host = join_later(rank0, body);
  PlayedRank rank(rank0.port, rank0.key.get());
  say(rank);
  return host.get();
}
inline std::string error_after(const std::function<void(PlayedRank&)>& say, const RankBody& body = {}) {
  return error_after(tcp_options(free_port(), 0, 2, 5'000), say, body);
}

}  // namespace optserve::comm::tcp
