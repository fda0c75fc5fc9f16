#include "transport/service_loop.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "base/shutdown.h"
#include "protocol/codec.h"
#include "transport/curve/connections.h"
#include "transport/curve/zap_handler.h"
#include "transport/peer_watch.h"
#include "transport/zmq_port.h"

namespace optserve::transport {
namespace {

// How many messages are read from one port before the other ports, ticks and sends have their turn.
constexpr int kReceiveBatch = 256;
// Rounds of sending what on_undeliverable() puts into the outbox; the rest goes out in the next turn.
constexpr int kFlushRounds = 4;
// How long the last messages of a process that ends in order, such as Goodbye, may take.
constexpr milliseconds kFarewell{500};
constexpr seconds kBetweenKeyLines{60};  // in the log, of a peer that does not let us in

struct PortMetrics {
  PortMetrics(metrics::Registry& registry, const std::string& port) {
    for (size_t kind = 0; kind < protocol::kMessageKinds; ++kind) {
      const metrics::Labels labels{{"port", port}, {"kind", std::string(protocol::message_name(kind))}};
      received[kind] = registry.counter("optserve_messages_received_total", "Messages received and decoded", labels);
      sent[kind] = registry.counter("optserve_messages_sent_total", "Messages handed to the network", labels);
    }
    const metrics::Labels labels{{"port", port}};
    received_bytes = registry.counter("optserve_received_bytes_total", "Payload bytes received", labels);
    sent_bytes = registry.counter("optserve_sent_bytes_total", "Payload bytes handed to the network", labels);
    garbage = registry.counter("optserve_garbage_total", "Messages that could not be decoded", labels);
    not_allowed =
        registry.counter("optserve_not_allowed_total", "Messages of connections without an allowed key", labels);
    const auto lost = [&](const char* reason) {
      return registry.counter("optserve_undeliverable_total", "Messages that could not be handed to their peer",
                              {{"port", port}, {"reason", reason}});
    };
    gone = lost("gone"), slow = lost("slow"), oversized = lost("oversized");
  }

  std::array<metrics::Counter, protocol::kMessageKinds> received, sent;
  metrics::Counter received_bytes, sent_bytes, garbage, not_allowed, gone, slow, oversized;
};

struct PortState {
  ZmqPort socket;
  PortMetrics metrics;
  std::optional<PeerWatch> watch{};
  std::optional<Connections> connections{};  // of a ROUTER with keys
  Instant next_key_log{};
};

void read_empty(int event_fd) {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t ignored = read(event_fd, &count, sizeof count);
}

// ZeroMQ's own ids begin with a zero byte and belong to one connection. An id chosen by the peer is used again by its
// next connection, which would then get what the earlier connection had asked for.
bool has_chosen_id(const ZmqPort& socket, const Peer& from) {
  return socket.is_router() && !from.route.starts_with('\0');
}

}  // namespace

struct ServiceLoop::Impl {
  using OnReadable = std::function<void(Instant, Outbox&)>;

  Impl(Service& s, const Clock& c, metrics::Registry& m) : service(s), clock(c), registry(m) {}

  PortId open(ZmqPort::Kind kind, const std::string& endpoint, const PortOptions& options);
  void build_poll_items();
  int poll_timeout_ms(Duration wait) const;
  void dispatch_descriptors();
  void receive_from(PortId id);
  void on_frame(const Peer& from, std::string_view payload);
  void on_garbage(const Peer& from, const Refusal& why);
  void tick();
  void refresh_keys(Instant now);
  void look_at_handshakes(PortId id);
  void report_ends(PortId id);
  void flush();
  void release_gated(uint64_t durable);
  void deliver(Outgoing& item);
  bool has_leftovers() const { return !out.empty() || !gated.empty(); }
  void set_linger(Duration linger);

  Service& service;
  const Clock& clock;
  metrics::Registry& registry;
  zmq::context_t context{1};
  std::shared_ptr<keys::ServerKeys> server_keys;
  std::optional<ZapHandler> zap;
  std::vector<std::unique_ptr<PortState>> ports;  // by PortId
  std::map<int, std::shared_ptr<OnReadable>> watches;
  DurabilityGate gate;
  std::deque<Outgoing> gated;  // in order of sending; the head waits for the journal
  metrics::Health* health = nullptr;
  Outbox out;
  std::vector<zmq_pollitem_t> poll_items;  // ports first, then what their monitors tell, then descriptors
  size_t polled_ports = 0;
  bool poll_items_stale = true;
  bool shutdown_seen = false;
  bool ended = false;
  zmq::message_t* handled = nullptr;  // that is being handled
  Instant next_tick{};                // at once
};

PortId ServiceLoop::Impl::open(ZmqPort::Kind kind, const std::string& endpoint, const PortOptions& options) {
  if (kind == ZmqPort::Kind::kRouter && options.server_keys != nullptr) {
    check(server_keys == nullptr || server_keys == options.server_keys, "a process has one list of keys");
    server_keys = options.server_keys;
    if (!zap) zap.emplace(context, *server_keys, registry);
  }
  ports.push_back(std::unique_ptr<PortState>(
      new PortState{ZmqPort(context, kind, endpoint, options), PortMetrics(registry, options.name)}));
  PortState& port = *ports.back();
  if (port.socket.is_router() && options.server_keys != nullptr) {
    port.connections.emplace(*server_keys, options.door, port.socket.last_endpoint());
  }
  poll_items_stale = true;
  return static_cast<PortId>(ports.size()) - 1;
}

void ServiceLoop::Impl::build_poll_items() {
  poll_items.clear();
  for (const auto& port : ports) poll_items.push_back({port->socket.handle(), 0, ZMQ_POLLIN, 0});
  for (const auto& port : ports) poll_items.push_back({port->socket.events_handle(), 0, ZMQ_POLLIN, 0});
  polled_ports = ports.size();
  if (gate.event_fd >= 0 && !watches.contains(gate.event_fd)) {
    poll_items.push_back({nullptr, gate.event_fd, ZMQ_POLLIN, 0});
  }
  if (zap) poll_items.push_back({zap->handle(), 0, ZMQ_POLLIN, 0});
  for (const auto& [fd, on_readable] : watches) poll_items.push_back({nullptr, fd, ZMQ_POLLIN, 0});
  // It stays readable once the signal has come, so it is watched only until it has woken the loop once.
  if (shutdown_fd() >= 0 && !shutdown_seen) poll_items.push_back({nullptr, shutdown_fd(), ZMQ_POLLIN, 0});
  poll_items_stale = false;
}

int ServiceLoop::Impl::poll_timeout_ms(Duration wait) const {
  if (!out.empty()) return 0;
  const Duration until_tick = next_tick == Instant{} ? Duration::zero() : next_tick - clock.now();
  const Duration timeout = std::clamp(until_tick, Duration::zero(), std::max(wait, Duration::zero()));
  return static_cast<int>(std::chrono::ceil<milliseconds>(timeout).count());
}

void ServiceLoop::Impl::dispatch_descriptors() {
  std::vector<int> readable;
  for (size_t i = 2 * polled_ports; i < poll_items.size(); ++i) {
    if (poll_items[i].revents == 0) continue;
    if (poll_items[i].socket != nullptr) {
      refresh_keys(clock.now());  // so that a key that was just allowed is accepted at once
      zap->answer_waiting(clock.now());
    } else {
      readable.push_back(poll_items[i].fd);
    }
  }
  for (const int fd : readable) {
    if (fd == gate.event_fd) read_empty(fd);
    if (fd == shutdown_fd()) shutdown_seen = poll_items_stale = true;
    const auto found = watches.find(fd);
    if (found == watches.end()) continue;
    const auto on_readable = found->second;  // a copy, which lives while it runs even if it ends its own watch
    (*on_readable)(clock.now(), out);
  }
}

void ServiceLoop::Impl::receive_from(PortId id) {
  PortState& port = *ports[static_cast<size_t>(id)];
  Peer from{id, {}};
  zmq::message_t payload;
  for (int i = 0; i < kReceiveBatch; ++i) {
    const Received received = port.socket.receive(from.route, payload);
    if (received != Received::kNothing && port.connections && port.connections->of(from.route, payload) == nullptr) {
      port.metrics.not_allowed.add();
      continue;
    }
    switch (received) {
      case Received::kNothing:
        return;
      case Received::kFrame:
        handled = &payload;
        on_frame(from, payload.to_string_view());
        handled = nullptr;
        break;
      case Received::kGarbage:
        on_garbage(from, refuse(ErrorCode::kBadRequest, "message: expected one payload frame"));
        break;
    }
  }
}

void ServiceLoop::Impl::on_frame(const Peer& from, std::string_view payload) {
  PortState& port = *ports[static_cast<size_t>(from.port)];
  if (has_chosen_id(port.socket, from)) {
    on_garbage(from, refuse(ErrorCode::kBadRequest, "routing id: leave it to ZeroMQ (ZMQ_ROUTING_ID must not be set)"));
    return;
  }
  if (port.watch) port.watch->heard(clock.now());
  port.metrics.received_bytes.add(static_cast<double>(payload.size()));
  auto message = protocol::decode(payload, port.socket.options().message_bytes_max);
  if (!message.ok()) {
    on_garbage(from, message.refusal());
    return;
  }
  port.metrics.received[message.value().index()].add();
  service.on_message(from, std::move(message).value(), clock.now(), out);
}

void ServiceLoop::Impl::on_garbage(const Peer& from, const Refusal& why) {
  ports[static_cast<size_t>(from.port)]->metrics.garbage.add();
  log_debug("garbage_received", {{"port", from.port}, {"why", why.message}});
  service.on_garbage(from, why, clock.now(), out);
}

void ServiceLoop::Impl::tick() {
  const Instant now = clock.now();
  if (now < next_tick) return;
  refresh_keys(now);
  for (size_t id = 0; id < ports.size(); ++id) look_at_handshakes(static_cast<PortId>(id));
  service.on_tick(now, out);
  for (const auto& port : ports) {
    if (port->socket.look_around(now)) poll_items_stale = true;
    if (!port->socket.options().is_watched) continue;
    if (!port->watch) port->watch.emplace(port->socket, health);
    port->watch->on_tick(now);
  }
  next_tick = now + service.tick_interval();
}

void ServiceLoop::Impl::refresh_keys(Instant now) {
  if (server_keys == nullptr || !server_keys->refresh()) return;
  for (size_t id = 0; id < ports.size(); ++id) {
    if (!ports[id]->connections) continue;
    for (std::string& route : ports[id]->connections->on_list_changed()) {
      service.on_expelled({static_cast<PortId>(id), std::move(route)}, "its key is not allowed any longer", now, out);
    }
  }
}

void ServiceLoop::Impl::look_at_handshakes(PortId id) {
  const Instant now = clock.now();
  PortState& port = *ports[static_cast<size_t>(id)];
  const void* before = port.socket.handle();
  const auto why = port.socket.look_at_handshakes(now);
  poll_items_stale |= port.socket.handle() != before;
  if (port.socket.take_is_new()) service.on_connected(id, now, out);
  if (!why) return;
  if (port.watch) port.watch->not_let_in(why->why);
  if (now >= port.next_key_log) {
    port.next_key_log = now + kBetweenKeyLines;
    log_warn("not_let_in", {{"endpoint", port.socket.endpoint()}, {"why", why->why}});
  }
  if (why->is_refusal) service.on_not_let_in(id, why->why, now, out);
}

void ServiceLoop::Impl::report_ends(PortId id) {
  for (std::string& route : ports[static_cast<size_t>(id)]->socket.take_ended()) {
    service.on_ended({id, std::move(route)}, clock.now(), out);
  }
}

void ServiceLoop::Impl::flush() {
  const uint64_t durable = gate.durable ? gate.durable() : 0;
  release_gated(durable);
  for (int round = 0; round < kFlushRounds; ++round) {
    service.on_flush(clock.now(), out);
    if (out.empty()) break;
    const auto reconnects = out.take_reconnects();
    for (Outgoing& item : out.take()) {
      check(item.after == 0 || gate.durable != nullptr, "send_after() needs ServiceLoop::set_durability()");
      if (item.after != 0 && (item.after > durable || !gated.empty())) {
        gated.push_back(std::move(item));
      } else {
        deliver(item);
      }
    }
    for (const PortId id : reconnects) {
      ports.at(static_cast<size_t>(id))->socket.reconnect();
      poll_items_stale = true;
    }
  }
}

void ServiceLoop::Impl::release_gated(uint64_t durable) {
  while (!gated.empty() && gated.front().after <= durable) {
    Outgoing item = std::move(gated.front());
    gated.pop_front();
    deliver(item);
  }
}

void ServiceLoop::Impl::deliver(Outgoing& item) {
  check(item.to.port >= 0 && static_cast<size_t>(item.to.port) < ports.size(), "a message for a port never opened");
  PortState& port = *ports[static_cast<size_t>(item.to.port)];
  const std::string frame = protocol::encode(item.message);
  Sent sent = Sent::kGone;
  if (frame.size() > port.socket.options().send_bytes_max) {
    port.metrics.oversized.add();
    log_error("message_too_large", {{"kind", protocol::message_name(item.message)},
                                    {"bytes", frame.size()},
                                    {"bytes_max", port.socket.options().send_bytes_max}});
  } else if (!port.connections || port.connections->find(item.to.route) != nullptr) {
    sent = port.socket.send(item.to.route, frame);
    if (sent == Sent::kYes) {
      port.metrics.sent[item.message.index()].add();
      port.metrics.sent_bytes.add(static_cast<double>(frame.size()));
      return;
    }
    (sent == Sent::kSlow ? port.metrics.slow : port.metrics.gone).add();
    if (sent == Sent::kGone && port.connections) port.connections->forget(item.to.route);
  }
  service.on_undeliverable(item.to, std::move(item.message), sent == Sent::kSlow, clock.now(), out);
}

void ServiceLoop::Impl::set_linger(Duration linger) {
  for (const auto& port : ports) port->socket.set_linger(linger);
}

ServiceLoop::ServiceLoop(Service& service, const Clock& clock, metrics::Registry& metrics)
    : impl_(std::make_unique<Impl>(service, clock, metrics)) {}
ServiceLoop::~ServiceLoop() = default;

PortId ServiceLoop::bind(const std::string& endpoint, const PortOptions& options) {
  return impl_->open(ZmqPort::Kind::kRouter, endpoint, options);
}

PortId ServiceLoop::connect(const std::string& endpoint, const PortOptions& options) {
  return impl_->open(ZmqPort::Kind::kDealer, endpoint, options);
}

std::string ServiceLoop::bound_endpoint(PortId port) const {
  return impl_->ports.at(static_cast<size_t>(port))->socket.last_endpoint();
}

const keys::AllowedKey* ServiceLoop::key_of(const Peer& peer) const {
  const auto& connections = impl_->ports.at(static_cast<size_t>(peer.port))->connections;
  return connections ? connections->find(peer.route) : nullptr;
}

std::string ServiceLoop::sender_address() const {
  const char* address = impl_->handled != nullptr ? zmq_msg_gets(impl_->handled->handle(), "Peer-Address") : nullptr;
  return address != nullptr ? address : "";
}

void ServiceLoop::set_durability(DurabilityGate gate) {
  impl_->gate = std::move(gate);
  impl_->poll_items_stale = true;
}

void ServiceLoop::set_health(metrics::Health* health) { impl_->health = health; }

void ServiceLoop::watch(int fd, std::function<void(Instant, Outbox&)> on_readable) {
  impl_->watches[fd] = std::make_shared<Impl::OnReadable>(std::move(on_readable));
  impl_->poll_items_stale = true;
}

void ServiceLoop::unwatch(int fd) {
  impl_->watches.erase(fd);
  impl_->poll_items_stale = true;
}

void ServiceLoop::turn(Duration wait) {
  Impl& loop = *impl_;
  if (loop.poll_items_stale) loop.build_poll_items();
  auto& items = loop.poll_items;
  const int count = zmq_poll(items.data(), static_cast<int>(items.size()), loop.poll_timeout_ms(wait));
  if (count < 0 && errno != EINTR) throw errno_error("zmq_poll");
  if (loop.health != nullptr) loop.health->stamp();
  if (count > 0) {
    const auto has_news = [&](size_t i) { return (items[loop.polled_ports + i].revents & ZMQ_POLLIN) != 0; };
    loop.dispatch_descriptors();
    // A new connection before what comes on it, an end after it: one of the last messages may be a goodbye.
    for (size_t i = 0; i < loop.polled_ports; ++i) {
      if (!loop.ports[i]->socket.is_router() && has_news(i)) loop.look_at_handshakes(static_cast<PortId>(i));
    }
    for (size_t i = 0; i < loop.polled_ports; ++i) {
      if ((items[i].revents & ZMQ_POLLIN) == 0) continue;
      loop.receive_from(static_cast<PortId>(i));
      loop.flush();
    }
    for (size_t i = 0; i < loop.polled_ports; ++i) {
      const ZmqPort& socket = loop.ports[i]->socket;
      if (socket.is_router() && (has_news(i) || socket.has_ended())) loop.report_ends(static_cast<PortId>(i));
    }
  }
  loop.tick();
  loop.flush();
}

void ServiceLoop::end() { impl_->ended = true; }

void ServiceLoop::run(Duration drain_deadline) {
  install_shutdown_signals();
  Impl& loop = *impl_;
  loop.poll_items_stale = true;
  bool draining = false;
  Instant deadline{};
  while (!shutdown_forced()) {
    turn(loop.service.tick_interval());
    if (loop.ended) {
      loop.set_linger(kFarewell);
      return;
    }
    const Instant now = loop.clock.now();
    if (!draining && shutdown_requested()) {
      draining = true;
      deadline = now + drain_deadline;
      log_info("drain_started", {});
      if (loop.health != nullptr) loop.health->set_problem("draining");
      loop.service.begin_drain(now, loop.out);
      loop.flush();
    }
    if (!draining) continue;
    const bool drained = loop.service.is_drained() && !loop.has_leftovers();
    if (!drained && now < deadline) continue;
    log_info("drain_ended", {{"complete", drained}});
    loop.set_linger(kFarewell);
    return;
  }
  log_warn("drain_skipped", {{"reason", "second signal"}});
}

}  // namespace optserve::transport
