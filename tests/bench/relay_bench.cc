#include <atomic>

#include "bench/queue_parts.h"

namespace optserve::bench {
namespace {

using protocol::Message;
using transport::Outbox;
using transport::Peer;

// The numbers by which peers identify themselves. All other numbers are instants.
constexpr uint64_t kTokenizer = 1, kClient = 2;

// Passes what comes from the tokenizer to the client, and everything else to the tokenizer.
class Hub final : public BenchPeer {
 public:
  void on_message(const Peer& from, Message message, Instant, Outbox& out) override {
    const uint64_t number = std::get<protocol::Ping>(message).number;
    if (number == kTokenizer || number == kClient) {
      (number == kTokenizer ? tokenizer_ : client_) = from;
      known |= static_cast<int>(number);
    } else {
      out.send(from == tokenizer_ ? client_ : tokenizer_, std::move(message));
    }
  }
  std::atomic<int> known{0};

 private:
  Peer tokenizer_, client_;
};

class RelayPeer : public BenchPeer {
 public:
  explicit RelayPeer(uint64_t name) : name_(name) {}
  void on_tick(Instant, Outbox& out) override {
    if (!introduced) out.send({0, {}}, protocol::Ping{name_});
  }
  std::atomic<bool> introduced{false};

 private:
  uint64_t name_;
};

class Echo final : public RelayPeer {
 public:
  Echo() : RelayPeer(kTokenizer) {}
  void on_message(const Peer& from, Message message, Instant, Outbox& out) override {
    out.send(from, std::move(message));
  }
};

class Receiver final : public RelayPeer {
 public:
  Receiver() : RelayPeer(kClient) {}
  void on_message(const Peer&, Message message, Instant, Outbox&) override {
    latencies_ns.push_back(now_ns() - static_cast<int64_t>(std::get<protocol::Ping>(message).number));
  }
  std::vector<int64_t> latencies_ns;  // read after the thread has stopped
};

class Source final : public BenchPeer {
 public:
  void on_message(const Peer&, Message, Instant, Outbox&) override {}
  void on_flush(Instant now, Outbox& out) override {
    if (now < next_) return;
    next_ = now + milliseconds(10);
    out.send({0, {}}, protocol::Ping{static_cast<uint64_t>(now_ns())});
  }

 private:
  Instant next_{};
};

}  // namespace

std::vector<Figure> measure_relay(const std::string& transport, int seconds) {
  Hub hub;
  Echo echo;
  Receiver receiver;
  Source source;
  LoopThread hub_thread(hub, [&](transport::ServiceLoop& loop) {
    loop.bind(any_endpoint(transport, "clients"), {.name = "clients"});
    loop.bind(any_endpoint(transport, "services"), {.name = "services"});
  });
  const auto connect_to = [&](int port) {
    return
        [&hub_thread, port](transport::ServiceLoop& loop) { loop.connect(hub_thread.loop().bound_endpoint(port), {}); };
  };
  LoopThread echo_thread(echo, connect_to(1)), receiver_thread(receiver, connect_to(0)),
      source_thread(source, connect_to(1));
  hub_thread.start();
  echo_thread.start();
  receiver_thread.start();
  while (hub.known != (kTokenizer | kClient)) std::this_thread::sleep_for(milliseconds(1));
  echo.introduced = receiver.introduced = true;
  std::this_thread::sleep_for(milliseconds(100));
  source_thread.start();
  std::this_thread::sleep_for(std::chrono::seconds(seconds));
  source_thread.stop();
  receiver_thread.stop();
  std::vector<Figure> figures;
  add_quantiles(figures, "four hops of a number, one every 10 ms", receiver.latencies_ns);
  return figures;
}

}  // namespace optserve::bench
