#include "scheduler/jobs/known_jobs.h"

#include <utility>

namespace optserve::scheduler {

void KnownJobs::recover(std::vector<journal::KnownKey> keys) {
  for (journal::KnownKey& known : keys) {
    add_key(known.tenant, known.key, {known.job, PayloadDigest(known.payload_sha256), known.group});
    if (keys_.end(known.tenant, known.key, known.job, known.state, known.expires_at_ms)) {
      groups_.ended(known.tenant, known.group, known.state);
    }
  }
  forget_group_members();
}

void KnownJobs::add_key(const std::string& tenant, const std::string& key, IdempotencyKeys::Entry entry) {
  metrics_.keys_evicted.add(static_cast<double>(keys_.add(tenant, key, std::move(entry))));
}

void KnownJobs::opened(Job& job) {
  add_key(job.spec().tenant, job.spec().key,
          {job.id, PayloadDigest(job.payload_sha256()), job.spec().group, job.accepted_sequence});
  groups_.opened(job);
  lister_.opened(job);
  forget_group_members();
}

void KnownJobs::ended(Job& job, const SharedResult& result, uint64_t sequence, int64_t expires_at_ms) {
  const protocol::JobSpec& spec = job.spec();
  results_.add(result, sequence, expires_at_ms);
  if (keys_.end(spec.tenant, spec.key, job.id, result->state, expires_at_ms)) {
    groups_.ended(spec.tenant, spec.group, result->state);
  }
  groups_.closed(job, sequence);
  lister_.closed(job);
}

void KnownJobs::purged(const journal::KnownKey& known) {
  results_.forget(known.job);
  keys_.forget(known.tenant, known.key, known.job);
  forget_group_members();
}

void KnownJobs::expire(int64_t now_ms) {
  keys_.expire(now_ms);
  forget_group_members();
}

void KnownJobs::forget_group_members() {
  for (const auto& [tenant, group, state] : keys_.take_forgotten()) groups_.forgotten(tenant, group, state);
}

}  // namespace optserve::scheduler
