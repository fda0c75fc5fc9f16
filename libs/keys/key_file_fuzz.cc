// Any bytes as a file with a secret key and as one with public keys: a refusal never repeats a key.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "keys/key_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve::keys;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto secret = parse_secret_key_file(input);
  if (secret.ok()) {
    optserve::check(parse_secret_key(secret.value().text()).ok(), "round trip");
  } else {
    optserve::check(secret.refusal().message.find(std::string(kSecretPrefix) + "0") == std::string::npos, "a secret");
  }
  const auto all = parse_public_key_file(input);
  if (!all.ok()) return 0;
  std::string written;
  for (const PublicKey& key : all.value()) written += key.text() + "\n";
  optserve::check(parse_public_key_file(written).value() == all.value(), "round trip");
  return 0;
}
