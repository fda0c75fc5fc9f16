#include "scheduler/tenants/payers.h"

#include <algorithm>
#include <iterator>
#include <type_traits>
#include <variant>

#include "base/input_check.h"
#include "base/limits.h"
#include "scheduler/access/rights.h"

namespace optserve::scheduler {

using Payers = std::map<std::string, int64_t>;

namespace {

// A key never uses up the quota of a tenant that it is not allowed for. Invalid names are refused later, and are not
// remembered here.
void add_payer(Payers& payers, const keys::AllowedKey* key, const std::string& tenant) {
  if (key != nullptr && !sees(*key, tenant)) return;
  if (tenant.size() <= limits::kTenantBytesMax && is_name(tenant)) ++payers[tenant];
}

Payers one_payer(const keys::AllowedKey* key, const std::string& tenant) {
  Payers payers;
  add_payer(payers, key, tenant);
  return payers;
}

}  // namespace

Payers payers_of(const protocol::Message& message, const keys::AllowedKey* key, const JobTable& jobs) {
  const bool has_one = key != nullptr && !key->is_operator && key->tenants.names().size() == 1;
  return std::visit(
      [&](const auto& body) -> Payers {
        using M = std::decay_t<decltype(body)>;
        using namespace protocol;
        if constexpr (std::is_same_v<M, Ping> || std::is_same_v<M, Pong> || std::is_same_v<M, Refused> ||
                      std::is_same_v<M, Credit>) {
          return {};
        } else if constexpr (std::is_same_v<M, Submit>) {
          if (has_one) return {{key->tenants.names().front(), std::max<int64_t>(1, std::ssize(body.jobs))}};
          Payers payers;
          for (const JobSpec& job : body.jobs) add_payer(payers, key, job.tenant);
          return payers;
        } else {
          if (has_one) return {{key->tenants.names().front(), 1}};
          if constexpr (std::is_same_v<M, ListJobs>) {
            if (body.filter.tenant) return one_payer(key, *body.filter.tenant);
          } else if constexpr (std::is_same_v<M, GetGroup>) {
            return one_payer(key, body.tenant);
          } else if constexpr (std::is_same_v<M, Attach> || std::is_same_v<M, Cancel> || std::is_same_v<M, GetJob>) {
            if (const Job* job = jobs.find(body.job)) return one_payer(key, job->spec().tenant);
          }
          return {};
        }
      },
      message);
}

}  // namespace optserve::scheduler
