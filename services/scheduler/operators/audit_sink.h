// Where a scheduler's audit records go: to the log of its process, and to a file if there is one. And what happens
// around it that is no message of anybody: its start and end, and files of keys and quotas that change.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "audit/audit_log.h"
#include "base/clock.h"
#include "base/error.h"
#include "keys/allow_list.h"
#include "keys/process_keys.h"
#include "keys/tenant_quotas.h"
#include "metrics/metrics.h"

namespace optserve::scheduler {

// "added web, shop; removed worker-0; changed ops", or that the names are the same.
std::string changes_of(const keys::AllowList& before, const keys::AllowList& after);
std::string changes_of(const keys::TenantQuotas& before, const keys::TenantQuotas& after);

class AuditSink {
 public:
  // `file`: "" for none. `scheduler`: which one this is, for people who look at the logs of several. `clock` and
  // `registry` outlive the sink.
  AuditSink(const std::string& file, std::string scheduler, const Clock& clock, metrics::Registry& registry);

  void write(audit::Record record);
  // Of what no message asked for, with the present time.
  void note(std::string action, std::string object, std::string reason = "",
            audit::Outcome outcome = audit::Outcome::kDone);
  // Notes what is read of these files from then on. The sink outlives their use.
  void watch(keys::ServerKeys& keys);
  void watch(keys::QuotaFile& quotas);

 private:
  const std::string scheduler_;
  const Clock& clock_;
  std::shared_ptr<const keys::TenantQuotas> quotas_;  // as last read
  std::optional<audit::Log> log_;
};

// What the start of a scheduler is recorded with, so that a change made while none ran shows. nullptr: there is none.
std::string state_text(uint64_t term, const keys::ServerKeys* keys, const keys::QuotaFile* quotas);

}  // namespace optserve::scheduler
