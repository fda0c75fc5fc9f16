#include "tcp_proxy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <deque>
#include <list>
#include <mutex>
#include <vector>

#include "base/error.h"
#include "ledger.h"
#include "sockets.h"

namespace optserve::chaos {
namespace {

constexpr size_t kChunkBytes = 64 << 10;
constexpr size_t kBufferedBytesMax = 1 << 20;  // of one direction
constexpr int kTurnMs = 5;                     // the precision of delays

struct Chunk {
  int64_t due_ms = 0;
  std::string bytes;
  size_t sent = 0;
};

// One direction of a connection.
struct Flow {
  int from = -1, to = -1;  // of the Connection
  std::deque<Chunk> chunks;
  size_t buffered = 0;
  bool ended = false;   // no more bytes come
  bool closed = false;  // and the other side was told

  bool wants_input(bool stalled) const { return from >= 0 && !ended && !stalled && buffered < kBufferedBytesMax; }
  bool wants_output(int64_t now) const { return !chunks.empty() && chunks.front().due_ms <= now; }
};

struct Connection {
  size_t link = 0;
  int client = -1, server = -1;  // server is -1 if the connection was swallowed
  std::array<Flow, 2> flows;     // by Direction
  bool failed = false;
};

struct Link {
  int listener = -1;
  int port = 0;
  TcpAddress target;
  LinkRule rule;
};

// Reads what has arrived. False if the connection failed.
bool receive(Flow& flow, int64_t due_ms) {
  std::string bytes(kChunkBytes, '\0');
  const ssize_t got = recv(flow.from, bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) {
    flow.ended = true;
    return true;
  }
  bytes.resize(static_cast<size_t>(got));
  flow.buffered += bytes.size();
  flow.chunks.push_back({due_ms, std::move(bytes), 0});
  return true;
}

// Writes the bytes that are due. False if the connection failed.
bool deliver(Flow& flow, int64_t now) {
  while (flow.wants_output(now)) {
    Chunk& chunk = flow.chunks.front();
    const ssize_t sent =
        send(flow.to, chunk.bytes.data() + chunk.sent, chunk.bytes.size() - chunk.sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    chunk.sent += static_cast<size_t>(sent);
    flow.buffered -= static_cast<size_t>(sent);
    if (chunk.sent < chunk.bytes.size()) return true;
    flow.chunks.pop_front();
  }
  if (flow.ended && flow.chunks.empty() && !flow.closed) {
    shutdown(flow.to, SHUT_WR);
    flow.closed = true;
  }
  return true;
}

}  // namespace

struct TcpProxy::Impl {
  void run();
  void accept_on(size_t link);
  void turn(Connection& connection, int64_t now);
  void end(Connection& connection);
  bool is_stalled(const Connection& connection, Direction direction) const;
  std::vector<pollfd> interests(int64_t now);

  mutable std::mutex mutex;
  std::vector<Link> links;  // guarded by mutex, as all below
  std::list<Connection> connections;
  std::atomic<bool> stopping{false};
  std::thread thread;
};

bool TcpProxy::Impl::is_stalled(const Connection& connection, Direction direction) const {
  const LinkRule& rule = links[connection.link].rule;
  return direction == Direction::kUp ? rule.stall_up : rule.stall_down;
}

void TcpProxy::Impl::accept_on(size_t index) {
  const Link& link = links[index];
  const int client = accept4(link.listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (client < 0) return;
  set_no_delay(client);
  Connection connection;
  connection.link = index;
  connection.client = client;
  if (!link.rule.swallow) {
    connection.server = start_connecting(link.target);
    if (connection.server < 0) {
      close(client);
      return;
    }
    connection.flows[0].from = connection.flows[1].to = client;
    connection.flows[0].to = connection.flows[1].from = connection.server;
  }
  connections.push_back(std::move(connection));
}

void TcpProxy::Impl::end(Connection& connection) {
  for (const int fd : {connection.client, connection.server}) {
    if (fd >= 0) close_with_reset(fd);
  }
}

// Moves what can be moved without waiting.
void TcpProxy::Impl::turn(Connection& connection, int64_t now) {
  if (connection.server < 0) return;
  for (const Direction direction : {Direction::kUp, Direction::kDown}) {
    Flow& flow = connection.flows[static_cast<size_t>(direction)];
    const int64_t due = now + links[connection.link].rule.delay_ms;
    if (flow.wants_input(is_stalled(connection, direction)) && !receive(flow, due)) connection.failed = true;
    if (!deliver(flow, now)) connection.failed = true;
  }
  const auto is_over = [](const Flow& flow) { return flow.closed; };
  if (is_over(connection.flows[0]) && is_over(connection.flows[1])) connection.failed = true;
}

std::vector<pollfd> TcpProxy::Impl::interests(int64_t now) {
  std::vector<pollfd> polled;
  for (const Link& link : links) polled.push_back({link.listener, POLLIN, 0});
  for (const Connection& connection : connections) {
    for (const Direction direction : {Direction::kUp, Direction::kDown}) {
      const Flow& flow = connection.flows[static_cast<size_t>(direction)];
      if (flow.wants_input(is_stalled(connection, direction))) polled.push_back({flow.from, POLLIN, 0});
      if (flow.wants_output(now)) polled.push_back({flow.to, POLLOUT, 0});
    }
  }
  return polled;
}

void TcpProxy::Impl::run() {
  while (!stopping.load()) {
    std::vector<pollfd> polled;
    {
      const std::lock_guard lock(mutex);
      polled = interests(now_ms());
    }
    poll(polled.data(), polled.size(), kTurnMs);
    const std::lock_guard lock(mutex);
    const int64_t now = now_ms();
    for (size_t i = 0; i < links.size(); ++i) accept_on(i);
    for (Connection& connection : connections) turn(connection, now);
    connections.remove_if([this](Connection& connection) {
      if (connection.failed) end(connection);
      return connection.failed;
    });
  }
}

TcpProxy::TcpProxy() : impl_(std::make_unique<Impl>()) {
  impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
}

TcpProxy::~TcpProxy() {
  impl_->stopping.store(true);
  impl_->thread.join();
  for (Connection& connection : impl_->connections) impl_->end(connection);
  for (const Link& link : impl_->links) close(link.listener);
}

int TcpProxy::add_link(const TcpAddress& listen_address, const TcpAddress& target) {
  Link link;
  link.listener = listen_on(listen_address);
  link.port = port_of(link.listener);
  link.target = target;
  const std::lock_guard lock(impl_->mutex);
  impl_->links.push_back(link);
  return static_cast<int>(impl_->links.size()) - 1;
}

int TcpProxy::port(int link) const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->links.at(static_cast<size_t>(link)).port;
}

void TcpProxy::set_rule(int link, const LinkRule& rule) {
  const std::lock_guard lock(impl_->mutex);
  Link& changed = impl_->links.at(static_cast<size_t>(link));
  const bool ends_swallowing = changed.rule.swallow && !rule.swallow;
  changed.rule = rule;
  for (Connection& connection : impl_->connections) {
    if (ends_swallowing && connection.link == static_cast<size_t>(link) && connection.server < 0) {
      connection.failed = true;
    }
  }
}

void TcpProxy::cut(int link) {
  const std::lock_guard lock(impl_->mutex);
  for (Connection& connection : impl_->connections) {
    if (connection.link == static_cast<size_t>(link)) connection.failed = true;
  }
}

void TcpProxy::half_close(int link, Direction direction) {
  const std::lock_guard lock(impl_->mutex);
  for (Connection& connection : impl_->connections) {
    if (connection.link == static_cast<size_t>(link)) connection.flows[static_cast<size_t>(direction)].ended = true;
  }
}

}  // namespace optserve::chaos
