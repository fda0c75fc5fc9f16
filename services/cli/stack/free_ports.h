// Finds ports for a stack that nothing else on the machine uses.
#pragma once

#include <vector>

namespace optserve::cli {

// `count` different ports on 127.0.0.1 that are free at this moment, below the range that the system uses for outgoing
// connections. Throws Error if there are not enough.
std::vector<int> find_free_ports(int count);
// The first of `count` such ports in a row.
int find_free_port_block(int count);
bool is_port_free(int port);

}  // namespace optserve::cli
