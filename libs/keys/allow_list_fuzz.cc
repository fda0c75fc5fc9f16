// Any bytes as a list of allowed keys: what is accepted has rights, and gives the same list when it is written and read
// again.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "keys/allow_list.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve::keys;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto list = parse_allow_list(input);
  if (!list.ok()) return 0;
  std::string written;
  for (const AllowedKey& key : list.value().keys()) {
    optserve::check(key.may_enter(Door::kClients) || key.may_enter(Door::kServices), "a key without a right");
    optserve::check(list.value().find(key.key) == &key, "a key that is not found");
    written += allow_line(key) + "\n";
  }
  const auto again = parse_allow_list(written);
  optserve::check(again.ok() && again.value().keys() == list.value().keys(), "round trip");
  return 0;
}
