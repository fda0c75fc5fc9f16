// How the ranks of a TCP group find each other: rank 0 listens until every other rank has connected twice, gives this
// start a random token, and stops listening.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "comm/tcp/link.h"

namespace optserve::comm::tcp {

// The connections of one rank, indexed by the rank of the peer. Rank 0 has two to each other rank; the others have two
// to rank 0.
struct Party {
  std::vector<Link> data;
  std::vector<Link> lifelines;
  uint64_t token = 0;  // of this start; the same on all ranks
};

// Returns once all ranks are there. Throws Error that says who is missing after `meet_timeout_ms`, or why rank 0
// refused this rank. A rank connects only here, before it holds any state of the group, so a group can never take in a
// rank of an earlier start. A rank whose connection ends before the group has started may connect again.
Party meet(const TcpGroupOptions& options, const Clock& clock);

}  // namespace optserve::comm::tcp
