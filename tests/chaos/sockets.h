// The few socket calls that the proxy and the rogue peers share. IPv4 literals only.
#pragma once

#include <string_view>

#include "tcp_proxy.h"

namespace optserve::chaos {

int listen_on(const TcpAddress& address);  // non-blocking; throws Error
int port_of(int socket);
// A non-blocking socket that is connecting; -1 if that is impossible.
int start_connecting(const TcpAddress& address);
// A connected, blocking socket on which every call times out after `seconds`; -1 if nobody listens there.
int connect_to(const TcpAddress& address, int seconds);
bool send_all(int socket, std::string_view bytes);
void set_no_delay(int socket);
void close_with_reset(int socket);

}  // namespace optserve::chaos
