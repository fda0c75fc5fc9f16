// Keys that are exchanged or revoked while connections are open.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "transport/curve/secure_test_nodes.h"

namespace optserve::transport {
namespace key_changes_test {
namespace {

using keys::SecretKey;
using testing::SizeIs;

TEST(KeyChanges, ANewKeyIsLetInWithoutARestart) {
  Authority authority;
  const SecretKey key = keys::new_secret_key();
  KeyedNode server(authority.server()), client(authority.client(key));
  client.dial(server.listen());
  EXPECT_FALSE(gets_in(server, client, kLongEnough));
  EXPECT_GE(client.service.refusals, 1);
  authority.allow(key);
  EXPECT_TRUE(gets_in(server, client));
  // A key that is used right after it was allowed, between two ticks, is not refused.
  server.service.tick = seconds(60);
  turn(
      {&server}, [] { return false; }, milliseconds(20));
  for (int i = 0; i < 3; ++i) {
    const SecretKey next = keys::new_secret_key();
    KeyedNode another(authority.client(next));
    authority.allow(next);
    another.dial(server.loop.bound_endpoint(0));
    EXPECT_TRUE(gets_in(server, another));
    EXPECT_EQ(another.service.refusals, 0);
  }
}

TEST(KeyChanges, AProcessShowsItsNewKeyWithTheNextConnection) {
  Authority authority;
  const SecretKey old_key = keys::new_secret_key(), new_key = keys::new_secret_key();
  authority.allow(old_key);
  const std::string path = authority.write_file("own", old_key.text());
  PortOptions options;
  options.client_keys = keys::ClientKeys::load(path, {authority.own.public_key().text()}).value();
  KeyedNode server(authority.server()), client(options);
  client.dial(server.listen());
  ASSERT_TRUE(gets_in(server, client));
  authority.allow(new_key);
  authority.write_file("own", new_key.text());
  authority.revoke(old_key);
  server.service.received.clear();
  ASSERT_TRUE(turn({&server}, [&] { return !server.service.expelled.empty(); }));
  client.service.received.clear();
  ASSERT_TRUE(gets_in(server, client));
  EXPECT_EQ(server.loop.key_of(server.service.received.back().first)->key, new_key.public_key());
}

TEST(KeyChanges, AServersKeyIsExchangedWhenItsClientsKnowBoth) {
  Authority old_authority, new_authority;
  const SecretKey key = keys::new_secret_key();
  new_authority.allow(key);
  KeyedNode client(new_authority.client(key, {old_authority.own.public_key(), new_authority.own.public_key()}));
  KeyedNode server(new_authority.server());
  client.dial(server.listen());
  EXPECT_TRUE(gets_in(server, client, seconds(3)));
}

// 32 connections that stream all the time; one of them loses its key, and a silent one too.
TEST(KeyChanges, ARevokedKeyLosesItsConnectionsWithinASecondAndTheOthersNotANumber) {
  constexpr size_t kGood = 32;
  Authority authority;
  const SecretKey bad_key = keys::new_secret_key();
  std::vector<SecretKey> good_keys;
  for (size_t i = 0; i < kGood; ++i) authority.allow(good_keys.emplace_back(keys::new_secret_key()));
  authority.allow(bad_key);
  KeyedNode server(authority.server());
  const std::string endpoint = server.listen();
  std::vector<std::unique_ptr<KeyedNode>> good;
  std::vector<KeyedNode*> all{&server};
  for (const SecretKey& key : good_keys) {
    all.push_back(good.emplace_back(std::make_unique<KeyedNode>(authority.client(key))).get());
    good.back()->dial(endpoint);
    ASSERT_TRUE(gets_in(server, *good.back()));
  }
  KeyedNode bad(authority.client(bad_key)), silent(authority.client(bad_key));
  bad.dial(endpoint);
  ASSERT_TRUE(gets_in(server, bad));
  silent.dial(endpoint);
  all.push_back(&bad), all.push_back(&silent);
  const Peer bad_peer = server.service.received.back().first;
  turn(
      all, [] { return false; }, milliseconds(300));
  ASSERT_EQ(server.value("optserve_handshakes_total{result=\"let_in\"}"), kGood + 2);
  for (const auto& client : good) client->service.received.clear(), client->service.undeliverable.clear();

  const auto begun = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point revoked_at{}, expelled_at{};
  uint64_t round = 0;
  size_t from_bad_afterwards = 0;
  ASSERT_TRUE(turn(all, [&] {
    const auto now = std::chrono::steady_clock::now();
    ++round;
    for (const auto& client : good) client->ping(round);
    bad.ping(round);
    if (revoked_at == std::chrono::steady_clock::time_point{} && now - begun > milliseconds(300)) {
      authority.revoke(bad_key);
      revoked_at = now;
    }
    if (expelled_at == std::chrono::steady_clock::time_point{} && !server.service.expelled.empty()) {
      expelled_at = now;
      server.service.received.clear();
    }
    if (expelled_at != std::chrono::steady_clock::time_point{}) {
      for (const auto& [peer, message] : server.service.received) from_bad_afterwards += peer == bad_peer;
      server.service.received.clear();
    }
    return now - begun > milliseconds(2'000);
  }));
  ASSERT_THAT(server.service.expelled, SizeIs(1));
  EXPECT_EQ(server.service.expelled.front(), bad_peer);
  EXPECT_LT(expelled_at - revoked_at, seconds(1));
  EXPECT_EQ(from_bad_afterwards, 0u);
  EXPECT_EQ(server.loop.key_of(bad_peer), nullptr);
  EXPECT_GE(bad.service.refusals, 1) << "it is told";
  EXPECT_GE(silent.service.refusals, 1) << "a connection that said nothing ends too";
  server.service.to_send.send(bad_peer, protocol::Ping{77});
  EXPECT_TRUE(turn(all, [&] { return !server.service.undeliverable.empty(); }));

  for (const auto& client : good) client->ping(round + 1);
  ASSERT_TRUE(turn(all, [&] {
    return std::ranges::all_of(good, [&](const auto& client) { return client->was_answered(round + 1); });
  }));
  for (const auto& client : good) {
    EXPECT_THAT(client->service.undeliverable, SizeIs(0));
    EXPECT_EQ(client->service.ping_numbers().size(), round + 1) << "every number came back, once";
  }
  EXPECT_EQ(server.value("optserve_handshakes_total{result=\"let_in\"}"), kGood + 2) << "nobody had to come again";
}

TEST(KeyChanges, OtherRightsAreAnotherKey) {
  Authority authority;
  const SecretKey key = keys::new_secret_key();
  authority.allow(key, "client=a");
  KeyedNode server(authority.server()), client(authority.client(key));
  client.dial(server.listen());
  ASSERT_TRUE(gets_in(server, client));
  authority.allow(key, "client=b");
  ASSERT_TRUE(turn({&server}, [&] { return !server.service.expelled.empty(); }));
  server.service.received.clear(), client.service.received.clear();
  ASSERT_TRUE(gets_in(server, client));
  EXPECT_TRUE(server.loop.key_of(server.service.received.back().first)->tenants.contains("b"));
}

TEST(KeyChanges, KeysGuardUnixSocketsToo) {
  Authority authority;
  const SecretKey key = keys::new_secret_key(), other = keys::new_secret_key();
  authority.allow(key);
  authority.allow(other);
  KeyedNode server(authority.server()), client(authority.client(key)), kept(authority.client(other));
  const std::string endpoint = "ipc://" + authority.write_file("socket", "") + ".ipc";
  server.listen(endpoint);
  client.dial(endpoint), kept.dial(endpoint);
  ASSERT_TRUE(gets_in(server, client));
  ASSERT_TRUE(gets_in(server, kept));
  authority.revoke(key);
  ASSERT_TRUE(turn({&server, &client, &kept}, [&] { return client.service.refusals > 0; }));
  EXPECT_EQ(kept.service.refusals, 0);
  EXPECT_THAT(server.service.expelled, SizeIs(1));
}

}  // namespace
}  // namespace key_changes_test
}  // namespace optserve::transport
