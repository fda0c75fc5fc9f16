#include "transport/monitor/connection_ends.h"

#include <cstring>
#include <utility>

namespace optserve::transport {
namespace {

// ZeroMQ's routes are a zero byte and a number that counts up and begins anew after 2^32.
uint32_t number_of(const std::string& route) {
  uint32_t number = 0;
  if (route.size() == 1 + sizeof number) std::memcpy(&number, route.data() + 1, sizeof number);
  return __builtin_bswap32(number);
}

bool is_older(const std::string& route, const std::string& than) {
  return static_cast<int32_t>(number_of(route) - number_of(than)) < 0;
}

}  // namespace

ConnectionEnds::ConnectionEnds(zmq::context_t& context, zmq::socket_t& socket)
    : monitor_(context, socket, ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED) {}

void ConnectionEnds::note(const std::string& route, zmq::message_t& frame) {
  if (known_.contains(route)) return;
  const int descriptor = zmq_msg_get(frame.handle(), ZMQ_SRCFD);
  if (descriptor < 0) return;
  known_.insert(route);
  look();
  // The connection may have ended before its first message is read, and another one may have its descriptor.
  std::string& holder = routes_[descriptor];
  if (!open_.contains(descriptor)) {
    routes_.erase(descriptor);
    end(route);
  } else if (holder.empty()) {
    holder = route;
  } else if (is_older(route, holder)) {
    end(route);
  } else {
    end(std::exchange(holder, route));
  }
}

void ConnectionEnds::note_all_read() {
  for (const std::string& route : std::exchange(ended_, {})) known_.erase(route);
}

std::vector<std::string> ConnectionEnds::take() {
  look();
  return std::exchange(untold_, {});
}

void ConnectionEnds::look() {
  while (const auto event = monitor_.take()) {
    const auto descriptor = static_cast<int>(event->value);
    if (event->kind == ZMQ_EVENT_ACCEPTED) {
      open_.insert(descriptor);
      continue;
    }
    open_.erase(descriptor);
    const auto found = routes_.find(descriptor);
    if (found == routes_.end()) continue;  // nothing has come from it yet
    end(found->second);
    routes_.erase(found);
  }
}

void ConnectionEnds::end(const std::string& route) {
  ended_.push_back(route);
  untold_.push_back(route);
}

}  // namespace optserve::transport
