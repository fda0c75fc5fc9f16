// Curve25519 keys, as ZeroMQ's CURVE uses them. As text, a key is "opt-public-" or "opt-secret-" and 64 hexadecimal
// digits, so that nobody confuses the two, shells need no quotes, and scanners for leaked secrets find them.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace optserve::keys {

inline constexpr size_t kKeyBytes = 32;
inline constexpr std::string_view kPublicPrefix = "opt-public-", kSecretPrefix = "opt-secret-";

struct PublicKey {
  std::array<uint8_t, kKeyBytes> bytes{};

  std::string text() const;
  // The first digits of text(), for logs and lists that people read.
  std::string short_text() const { return text().substr(0, kPublicPrefix.size() + 8); }
  auto operator<=>(const PublicKey&) const = default;
};

// Wiped when it is destroyed. It has no operator that prints it; text() is for the file that holds it.
class SecretKey {
 public:
  explicit SecretKey(std::span<const uint8_t, kKeyBytes> bytes);
  SecretKey(const SecretKey&) = default;
  SecretKey& operator=(const SecretKey&) = default;
  ~SecretKey();

  std::span<const uint8_t, kKeyBytes> bytes() const { return bytes_; }
  PublicKey public_key() const;
  std::string text() const;

 private:
  std::array<uint8_t, kKeyBytes> bytes_{};
};

SecretKey new_secret_key();

// The text must be a key and nothing else, without spaces around it. A refusal never repeats the text, which may be a
// secret.
Result<PublicKey> parse_public_key(std::string_view text);
Result<SecretKey> parse_secret_key(std::string_view text);

// Overwrites the text before it is freed.
void wipe(std::string& text);

}  // namespace optserve::keys
