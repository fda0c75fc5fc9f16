#include "simulation/fair_share.h"

#include <algorithm>
#include <vector>

namespace optserve::simulation {
namespace {

constexpr int kLookaheadOfTenant = 16;  // how many jobs of a tenant the scheduler looks at before it passes it over
constexpr double kRounding = 1e-6;

}  // namespace

FairShare::FairShare(const Environment& environment)
    : env_(environment), weights_(scheduler::TenantWeights::parse(environment.settings.tenant_weights).value()) {}

FairShare::Tenant& FairShare::tenant_of(Class& of, const std::string& name) const {
  const auto [found, is_new] = of.tenants.try_emplace(name);
  if (is_new) found->second.weight = weights_.of(name);
  return found->second;
}

double FairShare::cost_of(const protocol::JobSpec& spec) {
  size_t prompt = spec.prompt_ids.size();
  if (prompt == 0) {
    if (model_ == nullptr) model_ = env_.model.serve();
    std::vector<TokenId> ids;
    if (!model_->encoder.encode(spec.prompt, ids).ok()) return 0;
    prompt = ids.size() + 1;  // a text begins with </s>
  }
  return static_cast<double>(prompt) + spec.max_new_tokens;
}

void FairShare::on_leased(const scheduler::JobTable& jobs, const JobId& job, const protocol::JobSpec& spec,
                          const Fail& fail) {
  Class& of = classes_.at(static_cast<size_t>(spec.priority));
  Tenant& tenant = tenant_of(of, spec.tenant);
  const double share = cost_of(spec) / tenant.weight;
  tenant.longest = std::max(tenant.longest, share);
  for (auto& [names, pair] : of.pairs) {
    if (names.first != spec.tenant && names.second != spec.tenant) continue;
    pair.lead += names.first == spec.tenant ? share : -share;
    pair.least = std::min(pair.least, pair.lead);
    pair.most = std::max(pair.most, pair.lead);
    const double bound = tenant_of(of, names.first).longest + tenant_of(of, names.second).longest;
    if (pair.most - pair.least <= bound + kRounding) continue;
    fail("tenants '" + names.first + "' and '" + names.second + "' both wait with priority " +
         std::to_string(spec.priority) + ", and their shares drifted apart by " +
         std::to_string(pair.most - pair.least) + " tokens, allowed are " + std::to_string(bound));
  }
  look(of, jobs, job, spec.priority);
}

void FairShare::on_ended(const scheduler::JobTable& jobs, const JobId& job, const protocol::JobSpec& spec) {
  look(classes_.at(static_cast<size_t>(spec.priority)), jobs, job, spec.priority);
}

void FairShare::look(Class& of, const scheduler::JobTable& jobs, const JobId& but, int32_t priority) const {
  struct Waiting {
    int fresh = 0, lost = 0;
  };
  std::map<std::string, Waiting> waiting;
  jobs.for_each([&](const scheduler::Job& job) {
    if (job.stage() != scheduler::Stage::kWaiting || job.spec().priority != priority || job.id == but) return;
    ++(job.attempts().avoid == InstanceId{} ? waiting[job.spec().tenant].fresh : waiting[job.spec().tenant].lost);
  });
  for (const auto& [name, jobs_of] : waiting) tenant_of(of, name);
  for (auto& [name, tenant] : of.tenants) {
    const auto found = waiting.find(name);
    tenant.waits = found != waiting.end();
    const bool has_next = tenant.waits && found->second.fresh > 0 && found->second.lost < kLookaheadOfTenant;
    tenant.is_passed_over = tenant.waits && (tenant.is_passed_over || !has_next);
  }
  for (auto a = of.tenants.begin(); a != of.tenants.end(); ++a) {
    for (auto b = std::next(a); b != of.tenants.end(); ++b) {
      const auto shares = [](const Tenant& tenant) { return tenant.waits && !tenant.is_passed_over; };
      if (shares(a->second) && shares(b->second)) {
        of.pairs.try_emplace({a->first, b->first});
      } else {
        of.pairs.erase({a->first, b->first});
      }
    }
  }
}

}  // namespace optserve::simulation
