// SHA-256 of a stream of bytes. The only includer of OpenSSL in this component.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace optserve::checkpoint {

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

std::string to_hex(const Sha256::Digest& digest);
Sha256::Digest sha256_of(std::string_view text);
bool is_sha256_hex(std::string_view text);  // 64 lower-case hex digits

}  // namespace optserve::checkpoint
