// How the ranks of a TCP group find each other: rank 0 listens until every other rank has connected twice, names this
// start by a random token, and closes the door.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "comm/tcp_socket.h"

namespace optserve::comm::tcp {

// The connections of one rank, indexed by the peer's rank. Rank 0 has two to every other, the others two to rank 0.
struct Party {
  std::vector<Socket> data;
  std::vector<Socket> lifelines;
  uint64_t token = 0;  // of this start; the same on all ranks
};

// Returns once all ranks are there. Throws Error naming who is missing after `meet_timeout_ms`, or why rank 0 refused
// this rank. A rank connects before it holds any state of the group and never again, so that a group never meets a rank
// of an earlier start: a connection that ended before the start only frees its seat.
Party meet(const TcpGroupOptions& options);

}  // namespace optserve::comm::tcp
