#include "journal/merge/merge_plan.h"

#include <utility>

namespace optserve::journal {
namespace {

using protocol::JobState;

bool is_same_payload(const std::string& a, const std::string& b) { return a.empty() || b.empty() || a == b; }

Fate fate_of_duplicate(const KeyedJob& job, const KeyedJob& other) {
  const bool other_is_open = !protocol::is_terminal(other.state);
  if (!protocol::is_terminal(job.state)) return other_is_open ? Fate::kGivesWay : Fate::kTakesResult;
  if (job.state != JobState::kSucceeded || other.state == JobState::kSucceeded) return Fate::kKeepsOwnEnd;
  return other_is_open ? Fate::kEndsOther : Fate::kMoves;  // the later of two ended jobs has the key
}

}  // namespace

// In the order in which a scheduler that starts would give out the keys: open jobs have them whatever has ended.
MergePlan::MergePlan(const Recovery& into) {
  for (const KnownKey& known : into.keys) {
    there_.insert(known.job);
    keys_[joined(known.tenant, known.key)] = {known.job, 0, known.payload_sha256, known.state};
  }
  for (const OpenJob& open : into.open) {
    const Accepted& job = open.accepted;
    there_.insert(job.job);
    keys_[joined(job.spec.tenant, job.spec.key)] = {job.job, job.order, job.payload_sha256, JobState::kQueued};
  }
}

Decision MergePlan::decide(const std::string& tenant, const std::string& key, KeyedJob job) {
  if (there_.contains(job.job)) return {Fate::kIsThere};
  const auto [found, is_new] = keys_.try_emplace(joined(tenant, key));
  KeyedJob& known = found->second;
  const JobId id = job.job;
  if (is_new) {
    known = std::move(job);
    there_.insert(id);
    return {};
  }
  if (!is_same_payload(job.payload_sha256, known.payload_sha256)) return {Fate::kConflicts, known};
  const Decision decision{fate_of_duplicate(job, known), known};
  if (decision.fate == Fate::kMoves) known = std::move(job);
  if (decision.fate == Fate::kEndsOther) known.state = JobState::kSucceeded;
  there_.insert(id);
  return decision;
}

}  // namespace optserve::journal
