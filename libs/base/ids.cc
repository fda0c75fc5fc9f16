#include "base/ids.h"

#include <sys/random.h>

#include "base/error.h"
#include "base/hex.h"

namespace optserve {

Id128 Id128::random() {
  Id128 id;
  if (getrandom(id.bytes.data(), id.bytes.size(), 0) != static_cast<ssize_t>(id.bytes.size())) {
    throw errno_error("getrandom");
  }
  return id;
}

std::optional<Id128> Id128::from_hex(std::string_view text) {
  Id128 id;
  return optserve::from_hex(text, id.bytes) ? std::optional(id) : std::nullopt;
}

std::string Id128::hex() const { return to_hex(bytes); }

}  // namespace optserve
