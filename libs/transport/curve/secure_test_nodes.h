// For tests: nodes with keys.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "keys/key_files.h"
#include "transport/loop_test_nodes.h"

namespace optserve::transport {

inline constexpr Duration kLongEnough =
    milliseconds(700);  // for a handshake that succeeds; one takes some milliseconds

// A scheduler's keys and its list, in a folder.
class Authority {
 public:
  Authority() {
    std::string name = testing::TempDir() + "secure-loop-XXXXXX";
    folder_ = mkdtemp(name.data());
    write();
    const auto loaded = keys::ServerKeys::load(own.text(), folder_ + "/allowed", "");
    server_keys = loaded.value();
  }
  ~Authority() { std::filesystem::remove_all(folder_); }
  Authority(const Authority&) = delete;
  Authority& operator=(const Authority&) = delete;

  void allow(const keys::SecretKey& key, const std::string& rights = "client=a") {
    lines_[key.public_key()] = key.public_key().text() + " name=x " + rights + "\n";
    write();
  }
  void revoke(const keys::SecretKey& key) {
    lines_.erase(key.public_key());
    write();
  }
  PortOptions server(keys::Door door = keys::Door::kClients) const {
    PortOptions options;
    options.server_keys = server_keys;
    options.door = door;
    return options;
  }
  PortOptions client(const keys::SecretKey& key, std::vector<keys::PublicKey> servers = {}) const {
    if (servers.empty()) servers = {own.public_key()};
    PortOptions options;
    options.client_keys = std::make_shared<keys::ClientKeys>("", key, std::move(servers));
    return options;
  }
  std::string write_file(const std::string& name, const std::string& text) const {
    std::string path = folder_ + "/" + name;
    EXPECT_TRUE(keys::replace_file(path, text).ok());
    return path;
  }

  const keys::SecretKey own = keys::new_secret_key();
  std::shared_ptr<keys::ServerKeys> server_keys;

 private:
  void write() const {
    std::string text = "# allowed\n";
    for (const auto& [key, line] : lines_) text += line;
    write_file("allowed", text);
  }
  std::string folder_;
  std::map<keys::PublicKey, std::string> lines_;
};

// Records the end of connections too.
struct KeyedService : RecordingService {
  void on_expelled(const Peer& peer, const std::string& why, Instant, Outbox&) override {
    expelled.push_back(peer);
    last_why = why;
  }
  void on_not_let_in(PortId, const std::string& why, Instant, Outbox&) override {
    ++refusals;
    last_why = why;
  }
  std::vector<Peer> expelled;
  Duration tick_interval() const override { return tick; }
  Duration tick = milliseconds(1);
  int refusals = 0;
  std::string last_why;
};

struct KeyedNode {
  explicit KeyedNode(const PortOptions& given) : options(given) { service.handler = answer_pings; }
  std::string listen(const std::string& endpoint = "tcp://127.0.0.1:0") {
    return loop.bound_endpoint(loop.bind(endpoint, options));
  }
  void dial(const std::string& endpoint) { loop.connect(endpoint, options); }
  void ping(uint64_t number) { service.to_send.send({}, protocol::Ping{number}); }
  bool was_answered(uint64_t number) const {
    const auto numbers = service.ping_numbers();
    return std::find(numbers.begin(), numbers.end(), number) != numbers.end();
  }
  double value(const std::string& name) const {
    const std::string text = registry.text();
    double sum = 0;
    for (size_t at = text.find("\n" + name); at != std::string::npos; at = text.find("\n" + name, at + 1)) {
      sum += std::stod(text.substr(text.find(' ', at + 1) + 1));
    }
    return sum;
  }

  SystemClock clock;
  metrics::Registry registry;
  KeyedService service;
  PortOptions options;
  ServiceLoop loop{service, clock, registry};
};

template <class Done>
bool turn(const std::vector<KeyedNode*>& nodes, const Done& done, Duration limit = seconds(10)) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    for (KeyedNode* node : nodes) node->loop.turn(milliseconds(1));
  }
  return true;
}

// Pings until one is answered.
inline bool gets_in(KeyedNode& server, KeyedNode& client, Duration limit = seconds(10)) {
  static uint64_t number = 1'000;
  const uint64_t first = ++number;
  return turn(
      {&server, &client},
      [&] {
        client.ping(number);
        return client.was_answered(first) || client.was_answered(number);
      },
      limit);
}

}  // namespace optserve::transport
