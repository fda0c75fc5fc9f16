#include "scheduler/operators/audit_sink.h"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "base/hex.h"
#include "base/log.h"
#include "base/sha256.h"

namespace optserve::scheduler {
namespace {

constexpr size_t kChangesShown = 8;  // of each kind of change

void add_names(std::string& text, const char* what, const std::vector<std::string>& names) {
  if (names.empty()) return;
  text += (text.empty() ? "" : "; ") + std::string(what);
  for (size_t i = 0; i < std::min(names.size(), kChangesShown); ++i) text += (i == 0 ? " " : ", ") + names[i];
  if (names.size() > kChangesShown) text += " and " + std::to_string(names.size() - kChangesShown) + " more";
}

std::string changes_text(const std::vector<std::string>& added, const std::vector<std::string>& removed,
                         const std::vector<std::string>& changed) {
  std::string text;
  add_names(text, "added", added);
  add_names(text, "removed", removed);
  add_names(text, "changed", changed);
  return text.empty() ? "nothing changed" : text;
}

// Enough to see that two texts are not the same.
std::string short_digest(const std::string& text) {
  constexpr size_t kBytesShown = 8;
  const Sha256::Digest digest = sha256(text);
  return to_hex(std::span(digest).first(kBytesShown));
}

}  // namespace

std::string changes_of(const keys::AllowList& before, const keys::AllowList& after) {
  std::vector<std::string> added, removed, changed;
  for (const keys::AllowedKey& key : after.keys()) {
    const keys::AllowedKey* known = before.find(key.key);
    if (known == nullptr) {
      added.push_back(key.name + (key.is_operator ? " (operator)" : ""));
    } else if (*known != key) {
      changed.push_back(key.name + (key.is_operator && !known->is_operator ? " (operator now)" : ""));
    }
  }
  for (const keys::AllowedKey& key : before.keys()) {
    if (after.find(key.key) == nullptr) removed.push_back(key.name);
  }
  return changes_text(added, removed, changed);
}

std::string changes_of(const keys::TenantQuotas& before, const keys::TenantQuotas& after) {
  std::vector<std::string> added, removed, changed;
  if (before.others() != after.others()) changed.push_back("*");
  for (const auto& [tenant, quota] : after.named()) {
    const auto known = before.named().find(tenant);
    if (known == before.named().end()) {
      added.push_back(tenant);
    } else if (known->second != quota) {
      changed.push_back(tenant);
    }
  }
  for (const auto& [tenant, quota] : before.named()) {
    if (!after.named().contains(tenant)) removed.push_back(tenant);
  }
  return changes_text(added, removed, changed);
}

AuditSink::AuditSink(const std::string& file, std::string scheduler, const Clock& clock, metrics::Registry& registry)
    : scheduler_(std::move(scheduler)), clock_(clock) {
  if (file.empty()) return;
  const auto written = registry.counter("optserve_audit_records_total", "Records of the audit log that are on disk");
  const auto failed = registry.counter("optserve_audit_failures_total",
                                       "Attempts to write to the audit log that failed and are made again");
  const auto lost = registry.counter("optserve_audit_lost_total",
                                     "Records that are not in the audit log's file, since too many waited for it");
  log_.emplace(audit::LogOptions{.path = file,
                                 .on_written = [written](size_t records) { written.add(static_cast<double>(records)); },
                                 .on_failed = [failed] { failed.add(); },
                                 .on_lost = [lost](size_t records) { lost.add(static_cast<double>(records)); }});
}

void AuditSink::write(audit::Record record) {
  log_info("audit", {{"action", record.action},
                     {"object", record.object.substr(0, audit::kTextBytesMax)},
                     {"outcome", audit::outcome_name(record.outcome)},
                     {"reason", record.reason.substr(0, audit::kTextBytesMax)},
                     {"key", record.key},
                     {"peer", record.peer}});
  record.scheduler = scheduler_;
  if (log_) log_->write(std::move(record));
}

void AuditSink::note(std::string action, std::string object, std::string reason, audit::Outcome outcome) {
  write({.wall_ms = clock_.wall_ms(),
         .action = std::move(action),
         .object = std::move(object),
         .outcome = outcome,
         .reason = std::move(reason)});
}

void AuditSink::watch(keys::ServerKeys& keys) {
  keys.set_on_read([this, &keys](const Status& status) {
    if (status.ok()) {
      note("change", "allowed keys", changes_of(keys.allowed_before(), keys.allowed()));
    } else {
      note("change", "allowed keys", status.refusal().message, audit::Outcome::kRefused);
    }
  });
}

void AuditSink::watch(keys::QuotaFile& quotas) {
  quotas_ = quotas.quotas();
  quotas.set_on_read([this, &quotas](const Status& status) {
    if (status.ok()) {
      const auto before = std::exchange(quotas_, quotas.quotas());
      note("change", "tenant quotas", changes_of(*before, *quotas_));
    } else {
      note("change", "tenant quotas", status.refusal().message, audit::Outcome::kRefused);
    }
  });
}

std::string state_text(uint64_t term, const keys::ServerKeys* keys, const keys::QuotaFile* quotas) {
  std::string text = "term " + std::to_string(term);
  if (keys != nullptr) {
    std::vector<std::string> lines;
    for (const keys::AllowedKey& key : keys->allowed().keys()) lines.push_back(keys::allow_line(key));
    std::ranges::sort(lines);
    std::string all;
    for (const std::string& line : lines) all += line + "\n";
    text += "; allowed keys " + std::to_string(lines.size()) + ", digest " + short_digest(all);
  } else {
    text += "; no keys";
  }
  if (quotas != nullptr) {
    text += "; quotas of tenants " + std::to_string(quotas->quotas()->named().size()) + ", digest " +
            short_digest(keys::tenant_quotas_text(*quotas->quotas()));
  }
  return text;
}

}  // namespace optserve::scheduler
