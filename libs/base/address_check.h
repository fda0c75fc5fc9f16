// Checks whether a text can be an address. ZeroMQ takes a port above 65535 for a different one, and of other texts it
// says only that they are invalid.
#pragma once

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "base/error.h"

namespace optserve {

enum class AddressUse { kConnect, kListen };  // a listener may leave the port to the system, as 0 or *

inline bool is_address(std::string_view address, AddressUse use) {
  constexpr std::string_view kTcp = "tcp://";
  for (const std::string_view local : {"ipc://", "inproc://"}) {
    if (address.starts_with(local)) return address.size() > local.size();
  }
  const size_t colon = address.rfind(':');
  if (!address.starts_with(kTcp) || colon == std::string_view::npos || colon <= kTcp.size()) return false;
  const std::string_view port = address.substr(colon + 1);
  if (port == "*") return use == AddressUse::kListen;
  int number = -1;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  const bool is_number = error == std::errc() && end == port.data() + port.size();
  return is_number && number >= (use == AddressUse::kListen ? 0 : 1) && number <= 65'535;
}

// Checks one address, or several alternatives that are separated by "|".
inline Status check_address(std::string_view name, std::string_view addresses, AddressUse use) {
  for (size_t begin = 0; begin <= addresses.size();) {
    const size_t end = std::min(addresses.find('|', begin), addresses.size());
    const std::string_view one = addresses.substr(begin, end - begin);
    if (!is_address(one, use)) {
      const bool is_http = one.starts_with("http");
      return refuse(ErrorCode::kBadRequest, std::string(name) + " is '" + std::string(one) +
                                                "', expected tcp://HOST:PORT, such as tcp://127.0.0.1:5555" +
                                                (is_http ? "; that of a gateway does not do" : ""));
    }
    begin = end + 1;
  }
  return ok_status();
}

}  // namespace optserve
