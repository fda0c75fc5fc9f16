#include "gateway/access/api_key.h"

#include <nlohmann/json.hpp>
#include <set>

#include "base/clock.h"
#include "base/hex.h"
#include "base/ids.h"
#include "base/input_check.h"
#include "base/limits.h"
#include "base/utc_time.h"
#include "http_api/openai/json_text.h"

namespace optserve::gateway {
namespace {

using nlohmann::json;

constexpr int64_t kRequestsPerMinuteMax = 1'000'000;
constexpr int64_t kOpenJobsMax = 10'000'000;
constexpr size_t kKeyIdBytesMax = 64;

Refusal wrong_key(std::string message) { return refuse(ErrorCode::kBadRequest, std::move(message)); }

Sha256::Digest digest_of(const std::string& salt, std::string_view secret) {
  return sha256(salt + std::string(secret));
}

Status read_string(const std::string& name, const json& value, std::string& text) {
  if (!value.is_string()) return wrong_key(name + ": expected a string");
  text = value.get<std::string>();
  return ok_status();
}

Status read_count(const std::string& name, const json& value, int64_t max, int64_t& count) {
  if (!value.is_number_integer()) return wrong_key(name + ": expected an integer");
  count = value.get<int64_t>();
  return check_range(name, count, 0, max);
}

Status read_rights(const json& value, ApiKey& key) {
  if (!value.is_array()) return wrong_key("rights: expected a list of submit and operate");
  for (const json& right : value) {
    if (right == "submit") {
      key.may_submit = true;
    } else if (right == "operate") {
      key.may_operate = true;
    } else {
      return wrong_key("rights: expected submit and operate, found another value");
    }
  }
  return ok_status();
}

Status read_field(const std::string& name, const json& value, ApiKey& key) {
  if (name == "id") return read_string(name, value, key.id);
  if (name == "salt") return read_string(name, value, key.salt);
  if (name == "tenant") return read_string(name, value, key.tenant);
  if (name == "rights") return read_rights(value, key);
  if (name == "requests_per_minute") return read_count(name, value, kRequestsPerMinuteMax, key.requests_per_minute);
  if (name == "jobs_max") return read_count(name, value, kOpenJobsMax, key.jobs_max);
  if (name == "sha256") {
    const bool is_right = value.is_string() && from_hex(value.get_ref<const std::string&>(), key.digest);
    return is_right ? ok_status() : Status(wrong_key("sha256: expected 64 lower-case hexadecimal digits"));
  }
  if (name == "expires") {
    if (!value.is_string()) return wrong_key("expires: expected a string");
    const Result<int64_t> moment = parse_expiry(value.get_ref<const std::string&>());
    if (!moment.ok()) return moment.refusal();
    key.expires_ms = moment.value();
    return ok_status();
  }
  return wrong_key(
      "a field is not known, expected id, salt, sha256, tenant, rights, requests_per_minute, jobs_max and expires");
}

Result<ApiKey> parse_line(std::string_view line) {
  const json object = json::parse(line, nullptr, false);
  if (!object.is_object()) return wrong_key("expected a JSON object, as `optserve-gateway new-key` prints it");
  ApiKey key;
  for (const auto& [name, value] : object.items()) {
    if (Status status = read_field(name, value, key); !status.ok()) return status.refusal();
  }
  for (const char* name : {"id", "salt", "sha256", "tenant", "rights"}) {
    if (!object.contains(name)) return wrong_key("expected a field " + std::string(name));
  }
  // Not check_name: its message quotes the value, and somebody may have put the key there.
  if (key.id.empty() || key.id.size() > kKeyIdBytesMax || !is_name(key.id)) {
    return wrong_key("id: expected 1 to 64 characters of [A-Za-z0-9._-]");
  }
  if (key.tenant.empty() || key.tenant.size() > limits::kTenantBytesMax || !is_name(key.tenant)) {
    return wrong_key("tenant: expected 1 to " + std::to_string(limits::kTenantBytesMax) +
                     " characters of [A-Za-z0-9._-]");
  }
  if (!Id128::from_hex(key.salt)) return wrong_key("salt: expected 32 lower-case hexadecimal digits");
  if (!key.may_submit && !key.may_operate) return wrong_key("rights: expected submit, operate or both");
  return key;
}

}  // namespace

Result<std::vector<ApiKey>> parse_api_keys(std::string_view text) {
  std::vector<ApiKey> keys;
  std::set<std::string> ids;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos || line.starts_with('#')) continue;
    const std::string place = "line " + std::to_string(number) + ": ";
    Result<ApiKey> key = parse_line(line);
    if (!key.ok()) return wrong_key(place + key.refusal().message);
    if (!ids.insert(key.value().id).second) return wrong_key(place + "another line has the same id");
    if (keys.size() == kApiKeysMax) return wrong_key("more than " + std::to_string(kApiKeysMax) + " keys");
    keys.push_back(std::move(key).value());
  }
  return keys;
}

std::string api_key_line(const ApiKey& key) {
  nlohmann::ordered_json rights = nlohmann::ordered_json::array();
  if (key.may_submit) rights.push_back("submit");
  if (key.may_operate) rights.push_back("operate");
  nlohmann::ordered_json line{{"id", key.id},
                              {"salt", key.salt},
                              {"sha256", to_hex(key.digest)},
                              {"tenant", key.tenant},
                              {"rights", std::move(rights)}};
  if (key.requests_per_minute > 0) line["requests_per_minute"] = key.requests_per_minute;
  if (key.jobs_max > 0) line["jobs_max"] = key.jobs_max;
  if (key.expires_ms > 0) line["expires"] = rfc3339_text(key.expires_ms / 1'000);
  return http_api::json_text(line);
}

std::string random_api_key() { return "osk-" + Id128::random().hex() + Id128::random().hex(); }

Status set_secret(ApiKey& key, std::string_view secret) {
  if (secret.size() < kApiKeyBytesMin || secret.size() > kApiKeyBytesMax) {
    return wrong_key("the key has " + std::to_string(secret.size()) + " characters, expected " +
                     std::to_string(kApiKeyBytesMin) + " to " + std::to_string(kApiKeyBytesMax));
  }
  key.salt = Id128::random().hex();
  key.digest = digest_of(key.salt, secret);
  return ok_status();
}

const ApiKey* find_api_key(std::span<const ApiKey> keys, std::string_view secret, int64_t wall_ms) {
  if (secret.size() < kApiKeyBytesMin || secret.size() > kApiKeyBytesMax) return nullptr;
  const ApiKey* found = nullptr;
  for (const ApiKey& key : keys) {
    const bool is_valid = key.expires_ms == 0 || wall_ms < key.expires_ms;
    if (equal_in_constant_time(key.digest, digest_of(key.salt, secret)) && is_valid) found = &key;
  }
  return found;
}

Result<int64_t> parse_expiry(std::string_view text) {
  constexpr size_t kDateSize = 10;
  const auto moment = parse_rfc3339(std::string(text) + (text.size() == kDateSize ? "T00:00:00Z" : ""));
  if (!moment) return wrong_key("expires: expected a date such as 2027-01-31 or 2027-01-31T12:00:00Z");
  return *moment * 1'000;
}

}  // namespace optserve::gateway
