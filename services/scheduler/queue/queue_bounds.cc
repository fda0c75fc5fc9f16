#include "scheduler/queue/queue_bounds.h"

#include <algorithm>

namespace optserve::scheduler {
namespace {

constexpr size_t kBytesPerJob = sizeof(Job) + sizeof(JobBody) + 768;  // nodes and names in tables, the idempotency key
constexpr size_t kTextBytesPerToken = 8;
constexpr size_t kDecodeStateBytes = 256;
constexpr int64_t kRetryMsMin = 50;
constexpr int64_t kRetryMsMax = 30'000;
constexpr int64_t kRetryMsUnknown = 1'000;
// A client that is refused should retry when the queue has drained by this share; earlier there would be no room.
constexpr double kDrainedShare = 0.1;

size_t bytes_of_rules(const protocol::JobSpec& spec) {
  const sampling::TokenRules& rules = spec.rules;
  size_t ids = rules.allowed_ids.size() + rules.stop_ids.size() + rules.top_p_reset_ids.size();
  for (const auto& word : rules.bad_words) ids += word.size();
  size_t bytes = ids * sizeof(TokenId) + rules.logit_bias.size() * sizeof(sampling::TokenBias);
  // Bad words that are text: the text itself, and the ids of its two forms.
  for (const std::string& word : spec.bad_words) {
    bytes += sizeof(std::string) + word.size() + 2 * (sizeof(std::vector<TokenId>) + word.size() * sizeof(TokenId));
  }
  return bytes;
}

// At one place.
size_t bytes_of_best(int32_t count) {
  return sizeof(std::vector<sampling::TokenLogprob>) + static_cast<size_t>(count) * sizeof(sampling::TokenLogprob);
}

}  // namespace

size_t QueueBounds::bytes_of(const protocol::JobSpec& spec, size_t prompt_tokens) {
  size_t bytes = kBytesPerJob + spec.key.size() + spec.tenant.size() + spec.model.size() + spec.group.size();
  for (const std::string& stop : spec.stop) bytes += sizeof(std::string) + stop.size();
  if (spec.convert) return bytes + spec.convert->source.size() + spec.convert->destination.size();
  const size_t ids = prompt_tokens > 0 ? prompt_tokens : std::min(spec.prompt.size() + 1, limits::kContextTokensMax);
  bytes += spec.prompt.size() + spec.prompt_ids.size() * sizeof(TokenId);
  bytes += (spec.prompt_ids.empty() ? ids : spec.prompt_ids.size()) * sizeof(TokenId);
  bytes += bytes_of_rules(spec);
  if (spec.sampling.logprobs >= 0) {
    bytes += static_cast<size_t>(spec.max_new_tokens) * (sizeof(float) + bytes_of_best(spec.sampling.logprobs));
  }
  if (spec.prompt_logprobs) {
    bytes += std::max(ids, spec.prompt_ids.size()) *
             (sizeof(float) + (spec.prompt_best > 0 ? bytes_of_best(spec.prompt_best) : 0));
  }
  // The output, and with a beam search each of its hypotheses.
  const size_t outputs = spec.sampling.is_beam_search() ? static_cast<size_t>(spec.sampling.beam_width) + 1 : 1;
  bytes +=
      outputs * static_cast<size_t>(spec.max_new_tokens) * (sizeof(TokenId) + kTextBytesPerToken) + kDecodeStateBytes;
  return bytes;
}

int64_t QueueBounds::retry_after_ms(const ModelQueue& queue, double tokens) {
  const int64_t drain = queue.load.drain_ms(tokens);
  return drain < 0 ? kRetryMsUnknown : std::clamp(drain, kRetryMsMin, kRetryMsMax);
}

bool QueueBounds::exceeds_share(double of_tenant, double adds, double used, double bound) const {
  if (options_.tenant_share >= 1 || of_tenant <= 0) return false;
  // The free part stays proportional to what each greedy tenant holds, however many greedy tenants there are.
  const double times_free = options_.tenant_share / (1 - options_.tenant_share);
  return of_tenant + adds > times_free * (bound - used);
}

std::optional<QueueBounds::Full> QueueBounds::check(const protocol::JobSpec& spec, int64_t cost, size_t bytes,
                                                    const ModelQueue& queue) const {
  const auto tokens = static_cast<double>(queue.jobs.tokens());
  const double adds = static_cast<double>(cost);
  const double speed = queue.load.tokens_per_second();
  const double drain = static_cast<double>(queue.load.drain_ms(tokens + adds)) / 1'000;
  const auto full = [&](Bound bound, std::string message, double share) {
    return Full{bound, std::move(message), retry_after_ms(queue, tokens * share)};
  };
  if (jobs_ >= options_.open_jobs_max) {
    return full(Bound::kJobs, "the queue holds its maximum of " + std::to_string(options_.open_jobs_max) + " open jobs",
                kDrainedShare);
  }
  if (bytes_ + bytes > options_.queue_bytes_max) {
    return full(Bound::kBytes,
                "open jobs hold " + std::to_string(bytes_) + " bytes of the allowed " +
                    std::to_string(options_.queue_bytes_max),
                kDrainedShare);
  }
  const double seconds_max = options_.queue_seconds_max;
  if (speed > 0 && drain > seconds_max && queue.jobs.size() > 0) {
    const double excess = 1 - (1 - kDrainedShare) * seconds_max / drain;
    return full(Bound::kTokens,
                "the work that waits for model " + queue.name + " takes " +
                    std::to_string(static_cast<int64_t>(drain)) + " s at " +
                    std::to_string(static_cast<int64_t>(speed)) + " tokens/s, at most " +
                    std::to_string(static_cast<int64_t>(seconds_max)) + " s are queued",
                excess);
  }
  const auto found = tenants_.find(spec.tenant);
  const Tenant tenant = found == tenants_.end() ? Tenant{} : found->second;
  if (tenant.jobs >= options_.tenant_jobs_max) {
    return full(
        Bound::kTenant,
        "tenant '" + spec.tenant + "' has its maximum of " + std::to_string(options_.tenant_jobs_max) + " open jobs",
        kDrainedShare);
  }
  // The tenant's share of the work that waits, in seconds.
  const double own_tokens = static_cast<double>(queue.jobs.tokens_of(spec.tenant));
  const double drain_of_all = tokens > 0 ? drain * tokens / (tokens + adds) : 0;
  const double own_drain = tokens > 0 ? drain_of_all * own_tokens / tokens : 0;
  if (exceeds_share(static_cast<double>(tenant.jobs), 1, static_cast<double>(jobs_),
                    static_cast<double>(options_.open_jobs_max)) ||
      exceeds_share(static_cast<double>(tenant.bytes), static_cast<double>(bytes), static_cast<double>(bytes_),
                    static_cast<double>(options_.queue_bytes_max)) ||
      (speed > 0 && exceeds_share(own_drain, drain - drain_of_all, drain_of_all, seconds_max))) {
    return full(Bound::kTenant, "tenant '" + spec.tenant + "' holds its share of the queue", kDrainedShare);
  }
  return std::nullopt;
}

void QueueBounds::add(Job& job) {
  Tenant& tenant = tenants_[job.spec().tenant];
  ++tenant.jobs, ++jobs_;
  if (!job.is_generation()) ++tenant.conversions;
  count(job, bytes_of(job.spec(), job.prompt().ids.size()));
}

void QueueBounds::update(Job& job) {
  // Text that is longer than its tokens let expect is counted when it comes.
  const size_t expected_text = static_cast<size_t>(job.spec().max_new_tokens) * kTextBytesPerToken;
  count(job, bytes_of(job.spec(), job.prompt().ids.size()) +
                 (job.output().text.size() > expected_text ? job.output().text.size() - expected_text : 0));
}

void QueueBounds::count(Job& job, size_t bytes) {
  Tenant& tenant = tenants_[job.spec().tenant];
  tenant.bytes += bytes - job.slot.bytes_, bytes_ += bytes - job.slot.bytes_;
  job.slot.bytes_ = bytes;
  const int64_t tokens = job.is_generation() ? job.slot.cost : 0;
  tenant.tokens += tokens - job.slot.tokens_;
  job.slot.tokens_ = tokens;
}

TenantLoad QueueBounds::load_of(const std::string& name) const {
  const auto found = tenants_.find(name);
  if (found == tenants_.end()) return {};
  const Tenant& tenant = found->second;
  return {static_cast<int64_t>(tenant.jobs), static_cast<int64_t>(tenant.bytes), tenant.tokens, tenant.conversions};
}

void QueueBounds::remove(Job& job) {
  const auto found = tenants_.find(job.spec().tenant);
  Tenant& tenant = found->second;
  tenant.bytes -= job.slot.bytes_, bytes_ -= job.slot.bytes_;
  tenant.tokens -= job.slot.tokens_;
  if (!job.is_generation()) --tenant.conversions;
  --jobs_;
  if (--tenant.jobs == 0) tenants_.erase(found);
  job.slot.bytes_ = 0, job.slot.tokens_ = 0;
}

}  // namespace optserve::scheduler
