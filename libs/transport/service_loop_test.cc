#include "transport/service_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "base/error.h"
#include "base/shutdown.h"
#include "protocol/codec.h"
#include "transport/loop_test_nodes.h"

namespace optserve::transport {
namespace service_loop_test {

using ::testing::HasSubstr;

class OverEndpoint : public ::testing::TestWithParam<const char*> {};

TEST_P(OverEndpoint, EchoesInOrder) {
  Node server, client;
  server.service.handler = answer_pings;
  const std::string endpoint = GetParam() == std::string_view("ipc")
                                   ? "ipc://" + ::testing::TempDir() + "/loop_" + std::to_string(getpid()) + ".sock"
                                   : "tcp://127.0.0.1:0";
  client.dial(server.listen(endpoint));
  wait_connected(server, client);
  std::vector<uint64_t> expected;
  for (uint64_t i = 0; i < 3'000; ++i) {
    client.ping(i);
    expected.push_back(i);
  }
  EXPECT_TRUE(turn_until({&server, &client}, [&] { return client.service.received.size() >= expected.size(); }));
  EXPECT_EQ(client.service.ping_numbers(), expected);
  EXPECT_EQ(server.service.ping_numbers(), expected);
  EXPECT_TRUE(client.service.undeliverable.empty());
}
INSTANTIATE_TEST_SUITE_P(Transports, OverEndpoint, ::testing::Values("tcp", "ipc"));

TEST(ServiceLoop, BindErrorsNameTheEndpoint) {
  Node first, second;
  const std::string endpoint = first.listen();
  EXPECT_THAT([&] { second.listen(endpoint); }, ::testing::ThrowsMessage<Error>(HasSubstr(endpoint)));
  EXPECT_THAT([&] { second.listen("nonsense"); }, ::testing::ThrowsMessage<Error>(HasSubstr("nonsense")));
}

TEST(ServiceLoop, PeerThatLeftIsGone) {
  Node server;
  auto client = std::make_unique<Node>();
  client->dial(server.listen());
  client->ping(1);
  ASSERT_TRUE(turn_until({&server, client.get()}, [&] {
    if (server.service.received.empty()) client->ping(1);
    return !server.service.received.empty();
  }));
  const Peer peer = server.service.received.front().first;
  client.reset();
  ASSERT_TRUE(turn_until({&server}, [&] {
    if (server.service.undeliverable.empty()) server.ping(5, peer);
    return !server.service.undeliverable.empty();
  }));
  EXPECT_EQ(server.service.undeliverable.front().first, peer);
  EXPECT_EQ(std::get<protocol::Ping>(server.service.undeliverable.front().second).number, 5u);
  EXPECT_EQ(server.service.slow_count, 0);
}

TEST(ServiceLoop, UnknownPeerIsGone) {
  Node server;
  server.listen();
  server.ping(5, Peer{0, "nobody"});
  EXPECT_TRUE(turn_until({&server}, [&] { return server.service.undeliverable.size() == 1; }));
  EXPECT_EQ(server.service.slow_count, 0);
}

TEST(ServiceLoop, UnconnectedDealerDoesNotQueue) {
  Node client;
  client.dial("tcp://127.0.0.1:1");
  client.ping(5);
  EXPECT_TRUE(turn_until({&client}, [&] { return client.service.undeliverable.size() == 1; }));
  EXPECT_EQ(client.service.slow_count, 0);
}

TEST(ServiceLoop, SlowPeerIsReportedAndHoldsUpNobody) {
  PortOptions options;
  options.high_water_mark = 4;
  Node server(options), good;
  const std::string endpoint = server.listen();
  good.dial(endpoint);
  wait_connected(server, good);
  RawDealer slow(endpoint);  // sends once, then never reads
  slow.send(protocol::encode(protocol::Ping{77}));
  ASSERT_TRUE(turn_until({&server, &good}, [&] { return !server.service.received.empty(); }));
  const Peer slow_peer = server.service.received.front().first;
  server.service.handler = answer_pings;

  protocol::JobEvents big;
  big.events.push_back({JobId{}, 0, std::string(60'000, 'x'), 0, 0, 0});
  uint64_t good_round = 0;
  ASSERT_TRUE(turn_until({&server, &good}, [&] {
    for (int i = 0; i < 20; ++i) server.service.to_send.send(slow_peer, big);
    // One question at a time, since under load several answers at once would also exceed this peer's queue of four.
    if (good.service.received.size() == good_round) good.ping(good_round++);
    return server.service.slow_count > 100 && good_round > 10;
  }));
  EXPECT_EQ(static_cast<size_t>(server.service.slow_count), server.service.undeliverable.size());
  // Meanwhile the well-behaved peer got every answer.
  EXPECT_TRUE(turn_until({&server, &good}, [&] { return good.service.received.size() >= good_round; }));
  EXPECT_THAT(server.registry.text(), HasSubstr("optserve_undeliverable_total{port=\"scheduler\",reason=\"slow\"}"));
}

TEST(ServiceLoop, GarbageIsRefusedAndTheNextRequestWorks) {
  Node server;
  server.service.handler = answer_pings;
  RawDealer peer(server.listen());
  peer.send("this is not msgpack");
  peer.send("");
  peer.send("\x93\x09\x01\x80");  // version 9
  peer.send(protocol::encode(protocol::Ping{3}));
  std::vector<protocol::Message> answers;
  ASSERT_TRUE(turn_until({&server}, [&] {
    while (auto answer = peer.receive()) answers.push_back(std::move(*answer));
    return answers.size() >= 4;
  }));
  EXPECT_EQ(std::get<protocol::Refused>(answers[0]).code, ErrorCode::kBadRequest);
  EXPECT_EQ(std::get<protocol::Refused>(answers[1]).code, ErrorCode::kBadRequest);
  EXPECT_EQ(std::get<protocol::Refused>(answers[2]).code, ErrorCode::kUnsupportedVersion);
  EXPECT_EQ(std::get<protocol::Pong>(answers[3]).number, 3u);
  EXPECT_EQ(server.service.received.size(), 1u);
  EXPECT_THAT(server.registry.text(), HasSubstr("optserve_garbage_total{port=\"scheduler\"} 3"));
}

TEST(ServiceLoop, GarbageFromTheServerIsNotAnswered) {
  Node client;
  zmq::context_t context;
  zmq::socket_t router(context, zmq::socket_type::router);
  router.set(zmq::sockopt::linger, 0);
  router.bind("tcp://127.0.0.1:*");
  client.dial(router.get(zmq::sockopt::last_endpoint));
  zmq::message_t route, payload;
  ASSERT_TRUE(turn_until({&client}, [&] {
    client.ping(1);
    return router.recv(route, zmq::recv_flags::dontwait).has_value();
  }));
  ASSERT_TRUE(router.recv(payload, zmq::recv_flags::dontwait));
  router.send(route, zmq::send_flags::sndmore);
  router.send(zmq::str_buffer("garbage"), zmq::send_flags::none);
  ASSERT_TRUE(turn_until({&client}, [&] {
    return client.registry.text().find("garbage_total{port=\"scheduler\"} 1") != std::string::npos;
  }));
  turn_for({&client}, milliseconds(50));
  while (router.recv(route, zmq::recv_flags::dontwait)) {
    ASSERT_TRUE(router.recv(payload, zmq::recv_flags::dontwait));
    const auto message = protocol::decode(payload.to_string_view(), limits::kInternalMessageBytesMax);
    ASSERT_TRUE(message.ok());
    EXPECT_FALSE(std::holds_alternative<protocol::Refused>(message.value()));
  }
}

TEST(ServiceLoop, MessagesOfSeveralFramesAreRefusedWhole) {
  Node server;
  server.service.handler = answer_pings;
  RawDealer peer(server.listen());
  const std::string ping = protocol::encode(protocol::Ping{1});
  for (int i = 0; i < 5'000; ++i) peer.send(ping, true);
  peer.send(ping);
  peer.send(protocol::encode(protocol::Ping{2}));
  std::vector<protocol::Message> answers;
  ASSERT_TRUE(turn_until({&server}, [&] {
    while (auto answer = peer.receive()) answers.push_back(std::move(*answer));
    return answers.size() >= 2;
  }));
  EXPECT_THAT(std::get<protocol::Refused>(answers[0]).message, HasSubstr("one payload frame"));
  EXPECT_EQ(std::get<protocol::Pong>(answers[1]).number, 2u);
  EXPECT_EQ(server.service.ping_numbers(), std::vector<uint64_t>{2});
}

// With the same id it would inherit what an earlier connection had asked for.
TEST(ServiceLoop, APeerThatChoosesItsRoutingIdIsRefused) {
  Node server;
  server.service.handler = answer_pings;
  RawDealer peer(server.listen(), "chosen");
  peer.send(protocol::encode(protocol::Ping{1}));
  std::optional<protocol::Message> answer;
  ASSERT_TRUE(turn_until({&server}, [&] { return (answer = peer.receive()).has_value(); }));
  EXPECT_THAT(std::get<protocol::Refused>(*answer).message, HasSubstr("routing id"));
  EXPECT_TRUE(server.service.received.empty());
}

TEST(Outbox, MessagesThatWaitLeaveInTheirOrder) {
  Outbox out;
  EXPECT_EQ(out.send_after(7, {}, protocol::Ping{1}), 7u);
  EXPECT_EQ(out.send_after(3, {}, protocol::Ping{2}), 7u) << "it stands behind the first";
  EXPECT_EQ(out.send_after(0, {}, protocol::Ping{3}), 0u);
  EXPECT_EQ(out.send_after(8, {}, protocol::Ping{4}), 8u);
}

TEST(ServiceLoop, OversizedFrameEndsItsConnectionOnly) {
  PortOptions options;
  options.message_bytes_max = 10'000;
  Node server(options), good;
  server.service.handler = answer_pings;
  const std::string endpoint = server.listen();
  good.dial(endpoint);
  wait_connected(server, good);
  RawDealer bad(endpoint);
  bad.send(std::string(10'001, 'x'));
  turn_for({&server, &good}, milliseconds(200));
  EXPECT_TRUE(server.service.received.empty());
  good.ping(1);
  EXPECT_TRUE(turn_until({&server, &good}, [&] { return good.service.received.size() == 1; }));
}

TEST(ServiceLoop, TooLargeMessageIsUndeliverable) {
  Node server, client;
  client.options.send_bytes_max = 1'000;
  client.dial(server.listen());
  wait_connected(server, client);
  client.service.to_send.send({}, protocol::Refused{0, ErrorCode::kBusy, std::string(1'000, 'x')});
  client.ping(1);
  EXPECT_TRUE(turn_until({&server, &client}, [&] { return server.service.received.size() == 1; }));
  ASSERT_EQ(client.service.undeliverable.size(), 1u);
  EXPECT_TRUE(std::holds_alternative<protocol::Refused>(client.service.undeliverable.front().second));
}

// --- messages that wait for the journal

TEST(ServiceLoop, GatedMessagesLeaveInOrderOnceDurable) {
  Node server, client;
  FakeJournal journal;
  server.loop.set_durability({journal.fd, [&] { return journal.durable; }});
  client.dial(server.listen());
  Peer peer;
  server.service.handler = [&](const Peer& from, const protocol::Message&, Instant, Outbox&) { peer = from; };
  ASSERT_TRUE(turn_until({&server, &client}, [&] {
    if (peer.route.empty()) client.ping(0);
    return !peer.route.empty();
  }));
  auto& out = server.service.to_send;
  out.send_after(5, peer, protocol::Pong{50, 0});
  out.send_after(7, peer, protocol::Pong{70, 0});
  out.send_after(6, peer, protocol::Pong{60, 0});  // behind 70, whose number is higher
  out.send(peer, protocol::Pong{1, 0});            // overtakes
  using Numbers = std::vector<uint64_t>;
  ASSERT_TRUE(turn_until({&server, &client}, [&] { return client.service.received.size() == 1; }));
  turn_for({&server, &client}, milliseconds(50));
  EXPECT_EQ(client.service.ping_numbers(), (Numbers{1}));
  journal.commit(5);
  turn_for({&server, &client}, milliseconds(50));
  EXPECT_EQ(client.service.ping_numbers(), (Numbers{1, 50}));
  out.send_after(3, peer, protocol::Pong{30, 0});  // already durable, but does not overtake its kind
  turn_for({&server, &client}, milliseconds(50));
  EXPECT_EQ(client.service.ping_numbers(), (Numbers{1, 50}));
  journal.commit(7);
  ASSERT_TRUE(turn_until({&server, &client}, [&] { return client.service.received.size() == 5; }));
  EXPECT_EQ(client.service.ping_numbers(), (Numbers{1, 50, 70, 60, 30}));
}

TEST(ServiceLoop, JournalDescriptorWakesTheLoop) {
  Node server;
  FakeJournal journal;
  int reads = 0;
  server.loop.set_durability({journal.fd, [&] { return journal.durable; }});
  server.loop.watch(journal.fd, [&](Instant, Outbox&) { ++reads; });
  server.listen();
  turn_for({&server}, milliseconds(10));
  EXPECT_EQ(reads, 0);
  journal.commit(1);
  turn_for({&server}, milliseconds(10));
  EXPECT_EQ(reads, 1);  // once: the loop read it empty
}

TEST(ServiceLoopDeathTest, GatedMessageNeedsAJournal) {
  Node server;
  server.listen();
  server.service.to_send.send_after(1, Peer{0, "x"}, protocol::Ping{1});
  EXPECT_DEATH(turn_for({&server}, milliseconds(20)), "set_durability");
}

TEST(ServiceLoop, WatchedDescriptorRunsInTheLoop) {
  Node server, client;
  client.dial(server.listen());
  wait_connected(server, client);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  client.loop.watch(ends[0], [&](Instant, Outbox& out) {
    char byte = 0;
    ASSERT_EQ(read(ends[0], &byte, 1), 1);
    out.send({}, protocol::Ping{static_cast<uint64_t>(byte)});
    if (byte == 2) client.loop.unwatch(ends[0]);
  });
  ASSERT_EQ(write(ends[1], "\1\2\3", 3), 3);
  EXPECT_TRUE(turn_until({&server, &client}, [&] { return server.service.received.size() == 2; }));
  turn_for({&server, &client}, milliseconds(20));
  EXPECT_EQ(server.service.ping_numbers(), (std::vector<uint64_t>{1, 2}));
  close(ends[0]);
  close(ends[1]);
}

TEST(ServiceLoop, ReconnectGivesANewConnection) {
  Node server, client;
  server.service.handler = answer_pings;
  client.dial(server.listen());
  wait_connected(server, client);
  client.ping(1);
  ASSERT_TRUE(turn_until({&server, &client}, [&] { return client.service.received.size() == 1; }));
  const Peer before = server.service.received.back().first;
  client.service.to_send.reconnect(0);
  ASSERT_TRUE(turn_until({&server, &client}, [&] {
    client.ping(2);
    return client.service.received.size() > 1;
  }));
  EXPECT_NE(server.service.received.back().first, before);
}

TEST(ServiceLoop, ServerThatComesBackOnItsAddressIsFoundAgain) {
  auto server = std::make_unique<Node>();
  server->service.handler = answer_pings;
  const std::string endpoint = server->listen();
  Node client;
  client.dial(endpoint);
  wait_connected(*server, client);
  server.reset();
  turn_for({&client}, milliseconds(100));
  server = std::make_unique<Node>();
  server->service.handler = answer_pings;
  server->listen(endpoint);
  EXPECT_TRUE(turn_until({server.get(), &client}, [&] {
    client.ping(2);
    return !client.service.received.empty();
  }));
}

TEST(ServiceLoop, FloodDoesNotStarveTicksOrOtherPorts) {
  Node server, flooder, polite;
  server.service.handler = answer_pings;
  const std::string flooded = server.listen(), quiet = server.listen();
  flooder.dial(flooded);
  polite.dial(quiet);
  wait_connected(server, flooder);
  wait_connected(server, polite);
  for (int i = 0; i < 9'000; ++i) flooder.ping(1);
  flooder.loop.turn(milliseconds(2));
  turn_for({&flooder}, milliseconds(100));
  polite.ping(2);
  turn_for({&polite}, milliseconds(20));
  const int ticks_before = server.service.ticks;
  for (int turns = 0; turns < 4; ++turns) server.loop.turn(milliseconds(1));
  const auto numbers = server.service.ping_numbers();
  EXPECT_NE(std::find(numbers.begin(), numbers.end(), 2u), numbers.end()) << numbers.size() << " messages read";
  EXPECT_LT(numbers.size(), 4'000u);
  EXPECT_GT(server.service.ticks, ticks_before);
}

TEST(ServiceLoop, StampsHealthAndCountsMessages) {
  Node server, client;
  const SystemClock clock;
  metrics::Health health(clock);
  server.loop.set_health(&health);
  server.service.handler = answer_pings;
  client.dial(server.listen());
  wait_connected(server, client);
  EXPECT_GT(health.alive_at_ms.load(), 0);
  client.ping(1);
  ASSERT_TRUE(turn_until({&server, &client}, [&] { return client.service.received.size() == 1; }));
  const std::string text = client.registry.text();
  EXPECT_THAT(text, HasSubstr("optserve_messages_received_total{kind=\"Pong\",port=\"scheduler\"}"));
  EXPECT_THAT(text, HasSubstr("optserve_messages_sent_total{kind=\"Ping\",port=\"scheduler\"}"));
}

// The shutdown flag belongs to the process, so the whole run happens in a child.
TEST(ServiceLoopDeathTest, SigtermDrainsAndDeliversTheFarewell) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        auto server = std::make_unique<Node>();
        FakeJournal journal;
        RawDealer peer(server->listen());
        peer.send(protocol::encode(protocol::Ping{1}));
        Peer from;
        server->loop.set_durability({journal.fd, [&] { return journal.durable; }});
        server->service.handler = [&](const Peer& p, const protocol::Message&, Instant, Outbox&) {
          from = p;
          raise(SIGTERM);
        };
        server->service.on_drain = [&](Outbox& out) {
          out.send_after(1, from, protocol::Pong{42, 0});  // the loop must not end before this is out
          journal.commit(1);
        };
        server->loop.run(seconds(5));
        server.reset();
        zmq::message_t frame;
        peer.socket.set(zmq::sockopt::rcvtimeo, 2'000);
        const bool got = peer.socket.recv(frame).has_value();
        _exit(got && frame.to_string_view() == protocol::encode(protocol::Pong{42, 0}) ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(ServiceLoopDeathTest, DrainEndsAtItsDeadline) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        Node server;
        server.listen();
        FakeJournal journal;
        server.loop.set_durability({journal.fd, [&] { return journal.durable; }});
        server.service.on_drain = [&](Outbox& out) { out.send_after(9, Peer{0, "x"}, protocol::Ping{}); };
        install_shutdown_signals();
        raise(SIGTERM);
        const auto begun = std::chrono::steady_clock::now();
        server.loop.run(milliseconds(300));
        _exit(std::chrono::steady_clock::now() - begun >= milliseconds(300) ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

}  // namespace service_loop_test
}  // namespace optserve::transport
