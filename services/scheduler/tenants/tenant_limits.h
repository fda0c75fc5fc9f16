// What a tenant may hold and ask now, by its quotas (keys/tenant_quotas.h). Rates are token buckets that hold the
// amount of one minute: a tenant that has used it up is refused until some of it has come back. The request that
// empties a bucket is accepted as a whole, so that small jobs cannot overtake a large one forever.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "keys/tenant_quotas.h"

namespace optserve::scheduler {

// What counts against quotas: what a tenant's open jobs hold, or what a new one adds.
struct TenantLoad {
  int64_t jobs = 0;
  int64_t bytes = 0;
  int64_t tokens = 0;
  int64_t conversions = 0;
};

class TenantLimits {
 public:
  enum class Limit : uint8_t { kHeld, kTokens, kMessages };
  struct Over {
    Limit limit = Limit::kHeld;
    std::string message;         // names the limit
    int64_t retry_after_ms = 0;  // kHeld: not known here
    bool is_permanent = false;   // the job alone is more than its tenant may ever hold
  };

  explicit TenantLimits(std::shared_ptr<const keys::TenantQuotas> quotas) : quotas_(std::move(quotas)) {}

  // From now on.
  void set(std::shared_ptr<const keys::TenantQuotas> quotas) { quotas_ = std::move(quotas); }
  bool is_on() const { return quotas_ != nullptr; }
  // nullptr: there are no quotas.
  const keys::TenantQuotas* quotas() const { return quotas_.get(); }

  // Counts the messages of a tenant, which are then served; nullopt: they are.
  std::optional<Over> take_messages(const std::string& tenant, int64_t count, Instant now);
  // The highest priority that a tenant may ask for.
  Status check_priority(std::string_view tenant, int32_t priority) const;
  // Whether a tenant that holds `held` may have `adds` too, now.
  std::optional<Over> check(const std::string& tenant, const TenantLoad& held, const TenantLoad& adds, Instant now);
  // The same without rates, for jobs that were accepted before.
  std::optional<Over> check_held(std::string_view tenant, const TenantLoad& held, const TenantLoad& adds) const;
  // A job was accepted. Of jobs that come out of the journal, in the order of acceptance, with the time of that.
  void take_tokens(const std::string& tenant, int64_t tokens, Instant accepted_at);

  // Forgets tenants that have used nothing for a while, which has no other effect.
  void sweep(Instant now);
  // How many tenants are remembered.
  size_t size() const { return used_.size(); }

  static constexpr size_t kTenantsMax = 20'000;

 private:
  // Empties with time, at the tenant's rate.
  struct Used {
    double amount = 0;
    Instant at{};
    void drain(int64_t per_minute, Instant now);
  };
  struct Rates {
    Used messages, tokens;
  };
  Rates& rates_of(const std::string& tenant, Instant now);

  std::shared_ptr<const keys::TenantQuotas> quotas_;
  std::unordered_map<std::string, Rates> used_;
  Rates rest_;  // of all those for whom there was no room
};

}  // namespace optserve::scheduler
