// API keys as they are stored: one JSON object a line, with a salted hash instead of the key.
//
//   {"id":"web-1","salt":"…","sha256":"…","tenant":"web","rights":["submit"],"requests_per_minute":600,"jobs_max":50}
//
// SHA-256 is enough, and a hash that is slow on purpose is not needed: those protect passwords, of which people choose
// likely ones, while keys are random numbers of at least 128 bits, which nobody can try one after another. The salt
// hides that two lines are of the same key.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/sha256.h"

namespace optserve::gateway {

inline constexpr size_t kApiKeysMax = 1'000;   // each is hashed for each request
inline constexpr size_t kApiKeyBytesMin = 32;  // 128 bits as hexadecimal digits
inline constexpr size_t kApiKeyBytesMax = 256;
inline constexpr size_t kApiKeyFileBytesMax = 1 << 20;

struct ApiKey {
  std::string id{};    // for logs and people; not secret
  std::string salt{};  // 32 hexadecimal digits
  Sha256::Digest digest{};
  std::string tenant{};  // never empty
  bool may_submit = false;
  bool may_operate = false;
  int64_t requests_per_minute = 0;  // 0: any number
  int64_t jobs_max = 0;             // open at a time, in one gateway; 0: any number
  int64_t expires_ms = 0;           // since 1970; 0: never
};

// Of the text of a key file. Empty lines and lines that begin with '#' are skipped. Refuses the whole text if one line
// is wrong; the message names the line, and never quotes what may be a key.
Result<std::vector<ApiKey>> parse_api_keys(std::string_view text);

// The line of a key, without its end.
std::string api_key_line(const ApiKey& key);

// A random key of 256 bits: "osk-" and 64 hexadecimal digits.
std::string random_api_key();
// Fills in salt and digest for `secret`. Refuses a secret that is too short or too long.
Status set_secret(ApiKey& key, std::string_view secret);
// The key of this secret that has not expired; nullptr: there is none. Takes the same time wherever it stands, and
// however much of a wrong one is right.
const ApiKey* find_api_key(std::span<const ApiKey> keys, std::string_view secret, int64_t wall_ms);

// "2027-01-31", its first moment in UTC, or "2027-01-31T12:00:00Z", as milliseconds since 1970.
Result<int64_t> parse_expiry(std::string_view text);

}  // namespace optserve::gateway
