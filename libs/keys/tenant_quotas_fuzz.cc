// Any bytes as quotas of tenants: what is accepted stays the same when it is written and read again.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "keys/tenant_quotas.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve::keys;
  const auto quotas = parse_tenant_quotas(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!quotas.ok()) return 0;
  const auto again = parse_tenant_quotas(tenant_quotas_text(quotas.value()));
  optserve::check(again.ok() && again.value().named() == quotas.value().named() &&
                      again.value().others() == quotas.value().others(),
                  "round trip");
  for (const auto& [tenant, quota] : quotas.value().named()) {
    optserve::check(quota.jobs >= 0 && quota.tokens_per_minute > 0 && quota.messages_per_minute > 0, "a wrong quota");
  }
  return 0;
}
