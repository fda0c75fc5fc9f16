#include "keys/tenant_quotas.h"

#include <array>
#include <charconv>
#include <utility>
#include <vector>

#include "base/input_check.h"
#include "base/log.h"
#include "keys/key_files.h"

namespace optserve::keys {
namespace {

constexpr int64_t kQuotaMax = 1'000'000'000'000'000;

struct QuotaWord {
  std::string_view word;
  int64_t TenantQuota::*member;
  int64_t min, max;
};
// With a rate of 0, the time at which a client is told to come back would never come.
constexpr std::array<QuotaWord, 8> kQuotaWords = {{
    {"jobs", &TenantQuota::jobs, 0, kQuotaMax},
    {"running", &TenantQuota::running, 1, kQuotaMax},
    {"bytes", &TenantQuota::bytes, 0, kQuotaMax},
    {"tokens", &TenantQuota::tokens, 0, kQuotaMax},
    {"conversions", &TenantQuota::conversions, 0, kQuotaMax},
    {"tokens-per-minute", &TenantQuota::tokens_per_minute, 1, kQuotaMax},
    {"messages-per-minute", &TenantQuota::messages_per_minute, 1, kQuotaMax},
    {"priority", &TenantQuota::priority, 0, limits::kPriorityMax},
}};
constexpr TenantQuota kUnlimited{};

Refusal wrong_quota(const std::string& message) { return refuse(ErrorCode::kBadRequest, message); }

std::string quota_words() {
  std::vector<std::string_view> words;
  for (const QuotaWord& quota : kQuotaWords) words.push_back(quota.word);
  return one_of_text(words);
}

// One line: the tenant, and the quotas that it sets.
struct QuotaLine {
  bool is_of_others = false;
  std::string tenant;
  std::array<std::optional<int64_t>, kQuotaWords.size()> values;

  Status take_tenant(std::string_view word) {
    if (word == "tenant") return ok_status();
    if (!word.starts_with("tenant=")) return wrong_quota("expected tenant=NAME first, found " + found_text(word));
    word.remove_prefix(std::string_view("tenant=").size());
    is_of_others = word == "*";
    if (is_of_others) return ok_status();
    tenant = word;
    return check_name("tenant", tenant, 1, limits::kTenantBytesMax);
  }

  Status take_quota(std::string_view word) {
    const size_t equals = word.find('=');
    const std::string_view name = word.substr(0, equals);
    for (size_t i = 0; i < kQuotaWords.size(); ++i) {
      if (kQuotaWords[i].word != name) continue;
      if (values[i]) return wrong_quota(std::string(name) + ": stands twice");
      return take_value(i, equals == std::string_view::npos ? "" : word.substr(equals + 1));
    }
    return wrong_quota("expected " + quota_words() + " with a value, found " + found_text(word));
  }

  Status take_value(size_t place, std::string_view text) {
    const QuotaWord& quota = kQuotaWords[place];
    if (text == "none") {
      values[place] = kUnlimited.*quota.member;
      return ok_status();
    }
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
      return wrong_quota(std::string(quota.word) + " is " + found_text(text) + ", expected a whole number or none");
    }
    values[place] = value;
    return check_range(quota.word, value, quota.min, quota.max);
  }

  void apply_to(TenantQuota& quota) const {
    for (size_t i = 0; i < values.size(); ++i) {
      if (values[i]) quota.*kQuotaWords[i].member = *values[i];
    }
  }
};

Result<QuotaLine> parse_line(std::string_view line) {
  constexpr std::string_view kBlanks = " \t\r";
  QuotaLine parsed;
  for (bool is_first = true;; is_first = false) {
    const size_t begin = line.find_first_not_of(kBlanks);
    if (begin == std::string_view::npos) break;
    line.remove_prefix(begin);
    const std::string_view word = line.substr(0, line.find_first_of(kBlanks));
    line.remove_prefix(word.size());
    const Status status = is_first ? parsed.take_tenant(word) : parsed.take_quota(word);
    if (!status.ok()) return status.refusal();
  }
  return parsed;
}

std::string line_of(std::string_view who, const TenantQuota& quota) {
  std::string line(who);
  for (const QuotaWord& word : kQuotaWords) {
    const int64_t value = quota.*word.member;
    line += " " + std::string(word.word) + "=" + (value == kUnlimited.*word.member ? "none" : std::to_string(value));
  }
  return line + "\n";
}

}  // namespace

Result<TenantQuotas> parse_tenant_quotas(std::string_view text) {
  std::map<std::string, QuotaLine> lines;
  std::optional<QuotaLine> others;
  for (size_t number = 1; !text.empty(); ++number) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string_view::npos || line[first] == '#') continue;
    const auto wrong = [&](const std::string& why) {
      return wrong_quota("line " + std::to_string(number) + ": " + why);
    };
    Result<QuotaLine> parsed = parse_line(line);
    if (!parsed.ok()) return wrong(parsed.refusal().message);
    if (lines.size() >= kTenantQuotasMax) return wrong("more than " + std::to_string(kTenantQuotasMax) + " tenants");
    if (parsed.value().is_of_others) {
      if (others) return wrong("tenant=* stands twice");
      others = std::move(parsed).value();
      continue;
    }
    std::string tenant = parsed.value().tenant;
    const bool is_new = lines.emplace(tenant, std::move(parsed).value()).second;
    if (!is_new) return wrong(tenant.empty() ? "the tenant without a name stands twice" : tenant + " stands twice");
  }
  TenantQuotas quotas;
  if (others) others->apply_to(quotas.others_);
  for (const auto& [tenant, line] : lines) {
    TenantQuota quota = quotas.others_;
    line.apply_to(quota);
    quotas.named_.emplace(tenant, quota);
  }
  return quotas;
}

std::string tenant_quotas_text(const TenantQuotas& quotas) {
  std::string text = line_of("tenant=*", quotas.others());
  for (const auto& [tenant, quota] : quotas.named()) {
    text += line_of(tenant.empty() ? "tenant" : "tenant=" + tenant, quota);
  }
  return text;
}

Result<std::shared_ptr<QuotaFile>> QuotaFile::load(const std::string& path) {
  auto file = std::make_shared<QuotaFile>(path, file_stamp(path));
  if (Status status = file->read(); !status.ok()) return status.refusal();
  return file;
}

bool QuotaFile::refresh() {
  const std::optional<FileStamp> present = file_stamp(path_);
  if (present == seen_) return false;
  seen_ = present;
  const Status status = read();
  if (on_read_) on_read_(status);
  if (!status.ok()) {
    log_error("tenant_quotas_not_read",
              {{"file", path_}, {"cause", status.refusal().message}, {"kept", quotas_->named().size()}});
    return false;
  }
  log_info("tenant_quotas_read", {{"file", path_}, {"tenants", quotas_->named().size()}});
  return true;
}

Status QuotaFile::read() {
  const Result<std::string> text = read_key_file(path_, Privacy::kTrusted);
  if (!text.ok()) return text.refusal();
  Result<TenantQuotas> quotas = parse_tenant_quotas(text.value());
  if (!quotas.ok()) return refuse(quotas.refusal().code, path_ + ": " + quotas.refusal().message);
  quotas_ = std::make_shared<const TenantQuotas>(std::move(quotas).value());
  return ok_status();
}

}  // namespace optserve::keys
