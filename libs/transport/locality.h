// Whether only this machine takes part in a connection.
#pragma once

#include <string>

namespace optserve::transport {

// True for ipc://, inproc:// and tcp:// with an address of loopback or the name localhost. False for everything else,
// also for names that may resolve to loopback: whoever answers for names decides that. Of several addresses, all must
// be.
bool is_local(const std::string& endpoint);

enum class Side { kListens, kConnects };
// Throws ConfigurationError, which names the commands that make keys, if an endpoint without keys is not local.
void check_locality(const std::string& endpoint, Side side);

}  // namespace optserve::transport
