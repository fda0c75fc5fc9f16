#include "gateway/access/api_key.h"

#include <charconv>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "base/clock.h"
#include "base/hex.h"
#include "base/ids.h"
#include "base/input_check.h"
#include "base/limits.h"
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

// Two to four digits at `at`; -1: something else stands there.
int digits(std::string_view text, size_t at, size_t count) {
  if (at + count > text.size()) return -1;
  int value = 0;
  for (const char c : text.substr(at, count)) {
    if (c < '0' || c > '9') return -1;
    value = value * 10 + (c - '0');
  }
  return value;
}

std::string expiry_text(int64_t ms) {
  const std::chrono::sys_seconds moment{seconds(ms / 1'000)};
  const auto day = std::chrono::floor<std::chrono::days>(moment);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss time(moment - day);
  char text[40];
  std::snprintf(text, sizeof text, "%04d-%02u-%02uT%02d:%02d:%02dZ", static_cast<int>(date.year()),
                static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                static_cast<int>(time.hours().count()), static_cast<int>(time.minutes().count()),
                static_cast<int>(time.seconds().count()));
  return text;
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
  if (key.expires_ms > 0) line["expires"] = expiry_text(key.expires_ms);
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
  const auto wrong = [] { return wrong_key("expires: expected a date such as 2027-01-31 or 2027-01-31T12:00:00Z"); };
  const bool has_time = text.size() == 20;
  if (!has_time && text.size() != 10) return wrong();
  const int year = digits(text, 0, 4), month = digits(text, 5, 2), day = digits(text, 8, 2);
  if (year < 1970 || month < 0 || day < 0 || text[4] != '-' || text[7] != '-') return wrong();
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok()) return wrong();
  std::chrono::sys_seconds moment = std::chrono::sys_days(date);
  if (has_time) {
    const int hour = digits(text, 11, 2), minute = digits(text, 14, 2), second = digits(text, 17, 2);
    const bool is_time = text[10] == 'T' && text[13] == ':' && text[16] == ':' && text[19] == 'Z' && hour >= 0 &&
                         hour < 24 && minute >= 0 && minute < 60 && second >= 0 && second < 60;
    if (!is_time) return wrong();
    moment += std::chrono::hours(hour) + std::chrono::minutes(minute) + seconds(second);
  }
  return std::chrono::duration_cast<milliseconds>(moment.time_since_epoch()).count();
}

}  // namespace optserve::gateway
