// Whether a connection stays within this machine.
#pragma once

#include <string>

namespace optserve::transport {

// True for ipc://, inproc:// and tcp:// with a loopback address or the name localhost. False for everything else,
// including names that may resolve to loopback, since the name server decides that. Of several addresses, all must be
// local.
bool is_local(const std::string& endpoint);

enum class Side { kListens, kConnects };
// Throws ConfigurationError, which names the commands that make keys, if an endpoint without keys is not local.
void check_locality(const std::string& endpoint, Side side);

}  // namespace optserve::transport
