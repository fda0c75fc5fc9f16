// Ports for a stack that must not collide with anything else on the machine.
#pragma once

#include <vector>

namespace optserve::cli {

// `count` different ports on 127.0.0.1 that nothing uses at this moment, below the range that the system hands out to
// outgoing connections. Throws Error if there are none.
std::vector<int> find_free_ports(int count);
// The first of `count` such ports in a row.
int find_free_port_block(int count);
bool is_port_free(int port);

}  // namespace optserve::cli
