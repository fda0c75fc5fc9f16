// What each tenant may hold in a queue and ask of it. This is a text with one tenant per line:
//
//   # a comment: lines that begin with '#' and empty lines count for nothing
//   tenant=*     jobs=1000 running=32 tokens=500000 conversions=0 tokens-per-minute=200000 priority=5
//   tenant=shop  jobs=20000 tokens-per-minute=none priority=9
//   tenant       jobs=10
//
// tenant=* applies to tenants without a line of their own; the word `tenant` alone means the tenant without a name.
// What a line does not set is as in the line of tenant=*, wherever that is, or without a limit if there is no such
// line. `none` removes a limit.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/file_stamp.h"
#include "base/limits.h"

namespace optserve::keys {

inline constexpr size_t kTenantQuotasMax = 10'000;
inline constexpr int64_t kNoQuota = std::numeric_limits<int64_t>::max();

// Quotas of open jobs, which are waiting or running.
struct TenantQuota {
  int64_t jobs = kNoQuota;
  int64_t running = kNoQuota;  // how many of them may run at a time; the others wait
  int64_t bytes = kNoQuota;    // of memory, including all output that the jobs may produce
  int64_t tokens = kNoQuota;   // of the prompts and of the requested outputs
  int64_t conversions = kNoQuota;
  int64_t tokens_per_minute = kNoQuota;  // of accepted jobs
  int64_t messages_per_minute = kNoQuota;
  int64_t priority = limits::kPriorityMax;  // the highest that it may ask for
  bool operator==(const TenantQuota&) const = default;
};

class TenantQuotas {
 public:
  const TenantQuota& of(std::string_view tenant) const {
    const auto found = named_.find(tenant);
    return found == named_.end() ? others_ : found->second;
  }
  const TenantQuota& others() const { return others_; }
  // The tenants that have a line.
  const std::map<std::string, TenantQuota, std::less<>>& named() const { return named_; }

 private:
  friend Result<TenantQuotas> parse_tenant_quotas(std::string_view text);
  std::map<std::string, TenantQuota, std::less<>> named_;
  TenantQuota others_;
};

// Refuses the whole text if one line is wrong, naming the line.
Result<TenantQuotas> parse_tenant_quotas(std::string_view text);
// A text that gives the same quotas.
std::string tenant_quotas_text(const TenantQuotas& quotas);

// A file of quotas, which is read again when it changes.
class QuotaFile {
 public:
  // Only the owner may write the file.
  static Result<std::shared_ptr<QuotaFile>> load(const std::string& path);
  QuotaFile(std::string path, std::optional<FileStamp> seen) : path_(std::move(path)), seen_(seen) {}

  std::shared_ptr<const TenantQuotas> quotas() const { return quotas_; }
  // True if the file, and with it quotas(), has changed. A faulty or missing file is logged once and changes nothing.
  // Cheap if nothing has changed.
  bool refresh();
  // Called by refresh() after it has read the file, with the fault if there is one.
  void set_on_read(std::function<void(const Status& status)> on_read) { on_read_ = std::move(on_read); }

 private:
  Status read();

  std::string path_;
  std::function<void(const Status&)> on_read_;
  std::optional<FileStamp> seen_;
  std::shared_ptr<const TenantQuotas> quotas_;
};

}  // namespace optserve::keys
