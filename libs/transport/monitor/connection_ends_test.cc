#include "transport/monitor/connection_ends.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "transport/curve/secure_test_nodes.h"
#include "transport/loop_test_nodes.h"

namespace optserve::transport {
namespace connection_ends_test {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAreArray;

// Turns the server until it has received `count` messages.
void receive(Node& server, size_t count) {
  ASSERT_TRUE(turn_until({&server}, [&] { return server.service.received.size() >= count; }));
}

TEST(ConnectionEnds, AreToldAtOnce) {
  for (const bool over_tcp : {true, false}) {
    Node server;
    const std::string ipc = "ipc://" + ::testing::TempDir() + "/ends_" + std::to_string(getpid()) + ".sock";
    const std::string endpoint = server.listen(over_tcp ? "tcp://127.0.0.1:0" : ipc);
    RawDealer stays(endpoint);
    auto leaves = std::make_unique<RawDealer>(endpoint);
    leaves->send(protocol::encode(protocol::Ping{1}));
    receive(server, 1);
    const Peer peer = server.service.received.front().first;
    stays.send(protocol::encode(protocol::Ping{2}));
    receive(server, 2);
    EXPECT_THAT(server.service.ended, IsEmpty());
    leaves.reset();
    // Nothing is sent to it, and no heartbeat is missed yet.
    ASSERT_TRUE(turn_until({&server}, [&] { return !server.service.ended.empty(); }));
    turn_for({&server}, milliseconds(20));
    EXPECT_THAT(server.service.ended, ElementsAre(peer));
  }
}

TEST(ConnectionEnds, AreToldOfPeersWithKeys) {
  Authority authority;
  const auto key = keys::new_secret_key();
  authority.allow(key);
  Node server(authority.server());
  auto client = std::make_unique<Node>(authority.client(key));
  client->dial(server.listen());
  wait_connected(server, *client);
  client->ping(1);
  ASSERT_TRUE(turn_until({&server, client.get()}, [&] { return !server.service.received.empty(); }));
  const Peer peer = server.service.received.front().first;
  client.reset();
  ASSERT_TRUE(turn_until({&server}, [&] { return !server.service.ended.empty(); }));
  EXPECT_THAT(server.service.ended, ElementsAre(peer));
}

// A descriptor goes from one connection to the next, and some connections never say anything.
TEST(ConnectionEnds, AreThoseOfTheRightPeersWhenDescriptorsAreUsedAgain) {
  Node server;
  const std::string endpoint = server.listen();
  std::vector<Peer> gone, present;
  std::vector<std::unique_ptr<RawDealer>> stay;
  for (uint64_t i = 0; i < 60; ++i) {
    auto dealer = std::make_unique<RawDealer>(endpoint);
    const bool speaks = i % 3 != 0, stays = i % 5 == 0;
    if (speaks) {
      dealer->send(protocol::encode(protocol::Ping{i}));
      receive(server, server.service.received.size() + 1);
      (stays ? present : gone).push_back(server.service.received.back().first);
    }
    if (stays) stay.push_back(std::move(dealer));
  }
  ASSERT_TRUE(turn_until({&server}, [&] { return server.service.ended.size() >= gone.size(); }));
  turn_for({&server}, milliseconds(20));
  EXPECT_THAT(server.service.ended, UnorderedElementsAreArray(gone));
  stay.clear();
  gone.insert(gone.end(), present.begin(), present.end());
  ASSERT_TRUE(turn_until({&server}, [&] { return server.service.ended.size() >= gone.size(); }));
  EXPECT_THAT(server.service.ended, UnorderedElementsAreArray(gone));
}

TEST(ConnectionEnds, TakeNoMessageAway) {
  constexpr uint64_t kMessages = 2'000;
  Node server;
  {
    RawDealer dealer(server.listen());
    dealer.socket.set(zmq::sockopt::linger, -1);
    for (uint64_t i = 0; i < kMessages; ++i) dealer.send(protocol::encode(protocol::Ping{i}));
  }
  receive(server, kMessages);
  ASSERT_TRUE(turn_until({&server}, [&] { return !server.service.ended.empty(); }));
  turn_for({&server}, milliseconds(20));
  EXPECT_THAT(server.service.ended, ElementsAre(server.service.received.front().first));
  EXPECT_EQ(server.service.received.size(), kMessages);
}

// What is remembered of a connection goes once its messages are read.
TEST(ConnectionEnds, AreForgotten) {
  zmq::context_t context;
  zmq::socket_t router(context, zmq::socket_type::router);
  router.set(zmq::sockopt::linger, 0);
  ConnectionEnds ends(context, router);
  router.bind("tcp://127.0.0.1:*");
  {
    RawDealer dealer(router.get(zmq::sockopt::last_endpoint));
    dealer.send("x");
    zmq::message_t route, payload;
    ASSERT_TRUE(router.recv(route) && router.recv(payload));
    ends.note(route.to_string(), payload);
    EXPECT_EQ(ends.size(), 1u);
  }
  zmq_pollitem_t item{ends.handle(), 0, ZMQ_POLLIN, 0};
  ASSERT_EQ(zmq_poll(&item, 1, 10'000), 1);
  EXPECT_EQ(ends.take().size(), 1u);
  ends.note_all_read();
  EXPECT_EQ(ends.size(), 0u);
}

TEST(ConnectionEnds, ADealerLearnsThatItHasANewConnection) {
  Node client;
  auto server = std::make_unique<Node>();
  const std::string endpoint = server->listen();
  client.dial(endpoint);
  ASSERT_TRUE(turn_until({&client}, [&] { return client.service.connected == 1; }));
  server.reset();
  turn_for({&client}, milliseconds(20));
  server = std::make_unique<Node>();
  server->listen(endpoint);
  EXPECT_TRUE(turn_until({&client, server.get()}, [&] { return client.service.connected == 2; }));
}

TEST(ConnectionEnds, ADealerLearnsOfAConnectionBeforeItReadsWhatCameOnIt) {
  zmq::context_t context;
  zmq::socket_t server(context, zmq::socket_type::dealer);  // which can speak first
  server.set(zmq::sockopt::linger, 0);
  server.bind("tcp://127.0.0.1:*");
  Node client;
  client.dial(server.get(zmq::sockopt::last_endpoint));
  const std::string frame = protocol::encode(protocol::Pong{1, 7});
  server.send(zmq::buffer(frame), zmq::send_flags::none);
  std::this_thread::sleep_for(milliseconds(50));  // so that both wait, as a rule
  ASSERT_TRUE(turn_until({&client}, [&] { return client.service.received.size() == 1; }));
  EXPECT_EQ(client.service.connected, 1);
  EXPECT_EQ(client.service.received_before_connection, 0u);
}

}  // namespace connection_ends_test
}  // namespace optserve::transport
