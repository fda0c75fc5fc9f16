// SHA-256, computed by OpenSSL.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace optserve {

// The digest of a stream of bytes. Throws Error if OpenSSL fails.
class Sha256 {
 public:
  using Digest = std::array<uint8_t, 32>;

  Sha256();
  void update(std::span<const std::byte> bytes);
  Digest finish();  // once, last

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

// The digest of bytes in memory.
Sha256::Digest sha256(std::string_view bytes);
// For digests of secrets: the time does not depend on where they differ.
bool equal_in_constant_time(const Sha256::Digest& a, const Sha256::Digest& b);
// True for 64 lower-case hexadecimal digits, the form of digests in files (base/hex.h writes it).
bool is_sha256_hex(std::string_view text);

}  // namespace optserve
