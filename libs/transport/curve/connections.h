// The connections of a ROUTER whose peers have keys: which key each of them has shown, and the end of those whose key
// may no longer come in. Internal to the component.
//
// libzmq ends no connection of a ROUTER on demand (4.3.4: that is a draft). But it says which descriptor a message came
// from, and a descriptor that is shut down is the end of the connection for libzmq too.
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

  // The key of the connection that this frame came on; nullptr: nothing of it is to be looked at.
  const keys::AllowedKey* of(const std::string& route, zmq::message_t& frame);
  // The same for a connection that a frame came on before.
  const keys::AllowedKey* find(const std::string& route) const;
  void forget(const std::string& route) { known_.erase(route); }
  // The list of keys is another one. Ends the connections of keys that are gone or may do other things than before, and
  // returns their routes. Connections on which nothing came end too: their key is not known. They may come again.
  std::vector<std::string> on_list_changed();
  size_t size() const { return known_.size(); }

 private:
  struct Connection {
    const keys::AllowedKey* key;
    int fd;
    ino_t inode;  // of the socket: another one may get the same descriptor
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
