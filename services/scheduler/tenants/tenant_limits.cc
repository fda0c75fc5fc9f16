#include "scheduler/tenants/tenant_limits.h"

#include <algorithm>
#include <cmath>

namespace optserve::scheduler {
namespace {

constexpr double kMsPerMinute = 60'000;
constexpr int64_t kRateRetryMsMax = 600'000;

std::string tenant_text(std::string_view tenant) {
  return tenant.empty() ? "the tenant without a name" : "tenant '" + std::string(tenant) + "'";
}

// By then the bucket has room for one more.
int64_t rate_retry_ms(double used, int64_t per_minute) {
  const double excess = used - static_cast<double>(per_minute) + 1;
  const double ms = std::ceil(excess * kMsPerMinute / static_cast<double>(per_minute));
  return static_cast<int64_t>(std::clamp(ms, 1.0, static_cast<double>(kRateRetryMsMax)));
}

}  // namespace

void TenantLimits::Used::drain(int64_t per_minute, Instant now) {
  if (now <= at) return;
  const double ms = std::chrono::duration<double, std::milli>(now - at).count();
  amount = std::max(0.0, amount - ms * static_cast<double>(per_minute) / kMsPerMinute);
  at = now;
}

TenantLimits::Rates& TenantLimits::rates_of(const std::string& tenant, Instant now) {
  const auto found = used_.find(tenant);
  if (found != used_.end()) return found->second;
  if (used_.size() >= kTenantsMax) return rest_;
  return used_.emplace(tenant, Rates{{0, now}, {0, now}}).first->second;
}

std::optional<TenantLimits::Over> TenantLimits::take_messages(const std::string& tenant, int64_t count, Instant now) {
  if (!is_on()) return std::nullopt;
  const int64_t rate = quotas_->of(tenant).messages_per_minute;
  if (rate == keys::kNoQuota) return std::nullopt;
  Used& used = rates_of(tenant, now).messages;
  used.drain(rate, now);
  if (used.amount > static_cast<double>(rate - 1)) {
    return Over{Limit::kMessages,
                tenant_text(tenant) + " has sent its messages-per-minute, which are " + std::to_string(rate),
                rate_retry_ms(used.amount, rate)};
  }
  used.amount += static_cast<double>(count);
  return std::nullopt;
}

Status TenantLimits::check_priority(std::string_view tenant, int32_t priority) const {
  if (!is_on()) return ok_status();
  const int64_t highest = quotas_->of(tenant).priority;
  if (priority <= highest) return ok_status();
  return refuse(ErrorCode::kBadRequest, "priority is " + std::to_string(priority) + ", but the quota of " +
                                            tenant_text(tenant) + " is a priority of " + std::to_string(highest));
}

std::optional<TenantLimits::Over> TenantLimits::check_held(std::string_view tenant, const TenantLoad& held,
                                                           const TenantLoad& adds) const {
  if (!is_on()) return std::nullopt;
  const keys::TenantQuota& quota = quotas_->of(tenant);
  struct Bound {
    const char* name;
    int64_t max, held, adds;
  };
  const Bound bounds[] = {{"jobs", quota.jobs, held.jobs, adds.jobs},
                          {"bytes", quota.bytes, held.bytes, adds.bytes},
                          {"tokens", quota.tokens, held.tokens, adds.tokens},
                          {"conversions", quota.conversions, held.conversions, adds.conversions}};
  for (const Bound& bound : bounds) {
    if (bound.adds <= 0 || bound.held + bound.adds <= bound.max) continue;
    Over over;
    over.is_permanent = bound.adds > bound.max;
    over.message = "the quota of " + tenant_text(tenant) + " is " + std::to_string(bound.max) + " " + bound.name +
                   " in open jobs; it has " + std::to_string(bound.held) + ", and this job adds " +
                   std::to_string(bound.adds);
    return over;
  }
  return std::nullopt;
}

std::optional<TenantLimits::Over> TenantLimits::check(const std::string& tenant, const TenantLoad& held,
                                                      const TenantLoad& adds, Instant now) {
  if (auto over = check_held(tenant, held, adds)) return over;
  if (!is_on()) return std::nullopt;
  const int64_t rate = quotas_->of(tenant).tokens_per_minute;
  if (rate == keys::kNoQuota) return std::nullopt;
  Used& used = rates_of(tenant, now).tokens;
  used.drain(rate, now);
  if (used.amount <= static_cast<double>(rate - 1)) return std::nullopt;
  return Over{Limit::kTokens,
              tenant_text(tenant) + " has used its tokens-per-minute, which are " + std::to_string(rate),
              rate_retry_ms(used.amount, rate)};
}

void TenantLimits::take_tokens(const std::string& tenant, int64_t tokens, Instant accepted_at) {
  if (!is_on()) return;
  const int64_t rate = quotas_->of(tenant).tokens_per_minute;
  if (rate == keys::kNoQuota) return;
  Used& used = rates_of(tenant, accepted_at).tokens;
  used.drain(rate, accepted_at);
  used.amount += static_cast<double>(tokens);
}

void TenantLimits::sweep(Instant now) {
  if (!is_on()) return;
  for (auto it = used_.begin(); it != used_.end();) {
    const keys::TenantQuota& quota = quotas_->of(it->first);
    Rates& rates = it->second;
    rates.messages.drain(quota.messages_per_minute, now);
    rates.tokens.drain(quota.tokens_per_minute, now);
    it = rates.messages.amount == 0 && rates.tokens.amount == 0 ? used_.erase(it) : std::next(it);
  }
}

}  // namespace optserve::scheduler
