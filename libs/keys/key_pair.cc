#include "keys/key_pair.h"

#include <sodium.h>

#include <algorithm>

#include "base/hex.h"

namespace optserve::keys {
namespace {

static_assert(kKeyBytes == crypto_box_PUBLICKEYBYTES && kKeyBytes == crypto_box_SECRETKEYBYTES);

void start_sodium() {
  if (sodium_init() < 0) throw Error("libsodium: this system gives no random numbers");
}

Status parse_digits(std::string_view text, std::string_view prefix, std::span<uint8_t> bytes) {
  const bool wants_public = prefix == kPublicPrefix;
  const std::string expected = "expected " + std::string(prefix) + " and 64 lower-case hexadecimal digits";
  if (!text.starts_with(prefix)) {
    if (wants_public && text.starts_with(kSecretPrefix)) {
      return refuse(ErrorCode::kBadRequest, "this is a secret key, which belongs to one process alone; " + expected);
    }
    if (!wants_public && text.starts_with(kPublicPrefix)) {
      return refuse(ErrorCode::kBadRequest, "this is a public key; " + expected);
    }
    return refuse(ErrorCode::kBadRequest, expected + ", found " + std::to_string(text.size()) + " other characters");
  }
  const std::string_view digits = text.substr(prefix.size());
  if (digits.size() != 2 * kKeyBytes) {
    return refuse(ErrorCode::kBadRequest, expected + ", found " + std::to_string(digits.size()) + " after the prefix");
  }
  if (!from_hex(digits, bytes)) return refuse(ErrorCode::kBadRequest, expected + ", found another character");
  return ok_status();
}

}  // namespace

std::string PublicKey::text() const { return std::string(kPublicPrefix) + to_hex(bytes); }

SecretKey::SecretKey(std::span<const uint8_t, kKeyBytes> bytes) { std::ranges::copy(bytes, bytes_.begin()); }

SecretKey::~SecretKey() { sodium_memzero(bytes_.data(), bytes_.size()); }

PublicKey SecretKey::public_key() const {
  start_sodium();
  PublicKey key;
  crypto_scalarmult_base(key.bytes.data(), bytes_.data());
  return key;
}

std::string SecretKey::text() const { return std::string(kSecretPrefix) + to_hex(bytes_); }

SecretKey new_secret_key() {
  start_sodium();
  std::array<uint8_t, kKeyBytes> secret{}, unused{};
  crypto_box_keypair(unused.data(), secret.data());
  const SecretKey key(secret);
  sodium_memzero(secret.data(), secret.size());
  return key;
}

Result<PublicKey> parse_public_key(std::string_view text) {
  PublicKey key;
  if (Status status = parse_digits(text, kPublicPrefix, key.bytes); !status.ok()) return status.refusal();
  return key;
}

Result<SecretKey> parse_secret_key(std::string_view text) {
  std::array<uint8_t, kKeyBytes> bytes{};
  if (Status status = parse_digits(text, kSecretPrefix, bytes); !status.ok()) return status.refusal();
  const SecretKey key(bytes);
  sodium_memzero(bytes.data(), bytes.size());
  return key;
}

void wipe(std::string& text) {
  sodium_memzero(text.data(), text.size());
  text.clear();
}

}  // namespace optserve::keys
