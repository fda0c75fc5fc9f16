// The connections of a ROUTER whose peers have keys. It knows which key each of them has shown, and ends those whose
// key is no longer allowed. Internal to the component.
//
// libzmq cannot end a connection of a ROUTER on demand (in 4.3.4 that is a draft). But it says from which descriptor a
// message came, and once a descriptor is shut down, libzmq ends the connection.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>
#include <zmq.hpp>

#include "keys/process_keys.h"

namespace optserve::transport {

class Connections {
 public:
  // `keys` outlives this object. `endpoint` is what the socket is bound to, with its port.
  Connections(keys::ServerKeys& keys, keys::Door door, std::string endpoint);

  // The key of the connection on which this frame came; nullptr if the frame must be ignored.
  const keys::AllowedKey* of(const std::string& route, zmq::message_t& frame);
  // The same for a connection on which a frame has come before.
  const keys::AllowedKey* find(const std::string& route) const;
  void forget(const std::string& route) { known_.erase(route); }
  // To be called when the list of keys has changed. Ends the connections of keys that are gone or have different
  // rights, and returns their routes. It also ends connections on which nothing has come, since their key is not known;
  // their peers may connect again.
  std::vector<std::string> on_list_changed();
  size_t size() const { return known_.size(); }

 private:
  struct Connection {
    const keys::AllowedKey* key;
    int fd;
    ino_t inode;  // of the socket, since another one may get the same descriptor
  };
  const keys::AllowedKey* take_in(const std::string& route, zmq::message_t& frame);
  void sweep();
  // Shuts down every connection of this endpoint that is not in known_.
  void end_unknown() const;

  keys::ServerKeys& keys_;
  const keys::Door door_;
  const std::string endpoint_;
  std::unordered_map<std::string, Connection> known_;  // by route
  size_t sweep_at_;
};

}  // namespace optserve::transport
