// Which connections of a ROUTER have ended, by their routes. The kernel closes the connections of a process that dies,
// however it dies, so its peer learns of it within a millisecond. Internal to the component.
//
// libzmq 4.3.4 does not tell a ROUTER's owner which peer has gone (ZMQ_DISCONNECT_MSG is a draft, which distributions
// leave out). But its monitor tells the descriptors of connections that begin and end, in their order, and each message
// tells the descriptor that it came from.
#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>
#include <zmq.hpp>

#include "transport/monitor/connection_monitor.h"

namespace optserve::transport {

class ConnectionEnds {
 public:
  // To be made before `socket` is bound, and to be destroyed before it is closed. Throws zmq::error_t.
  ConnectionEnds(zmq::context_t& context, zmq::socket_t& socket);

  // To be called with every message that was received: a connection is known from its first message on. The routes are
  // those that ZeroMQ gives, which count up.
  void note(const std::string& route, zmq::message_t& frame);
  // To be called when no message waits. Until then, messages of connections that have ended may come.
  void note_all_read();
  // The routes of the connections that have ended since the last call, each once.
  std::vector<std::string> take();
  bool has_untold() const { return !untold_.empty(); }
  // Can be polled for ends.
  void* handle() { return monitor_.handle(); }
  size_t size() const { return known_.size(); }

 private:
  void look();
  void end(const std::string& route);

  ConnectionMonitor monitor_;
  std::unordered_set<int> open_;                 // descriptors
  std::unordered_map<int, std::string> routes_;  // by descriptor; of open connections that have sent something
  std::unordered_set<std::string> known_;        // routes; those that have ended as well, until all messages are read
  std::vector<std::string> ended_, untold_;
};

}  // namespace optserve::transport
