// What the ledger makes of messages, of what applications are told, and of the scheduler's memory.
#include <algorithm>

#include "simulation/ledger.h"
#include "simulation/nodes/simulated_store.h"

namespace optserve::simulation {

using protocol::JobResult;
using protocol::JobState;

void Ledger::on_sent(const protocol::Message& message, const OnDisk& disk) {
  if (const auto* reply = std::get_if<protocol::SubmitReply>(&message)) {
    for (const protocol::SubmitOutcome& outcome : reply->outcomes) {
      if (!outcome.job) continue;
      const auto found = entries_.find(*outcome.job);
      if (found == entries_.end()) continue;  // ended and forgotten meanwhile
      found->second.acked = true;
      if (disk.find_open(*outcome.job) != nullptr || disk.find_ended(*outcome.job) != nullptr) continue;
      fail(Invariant::kAckedJobKept, "job " + outcome.job->hex() + " is acknowledged before it is on disk");
    }
  } else if (const auto* dispatch = std::get_if<protocol::Dispatch>(&message)) {
    check_dispatch(*dispatch, disk);
  }
  const auto* status = std::get_if<protocol::JobStatus>(&message);
  const auto* finished = std::get_if<protocol::JobFinished>(&message);
  if (status == nullptr && finished == nullptr) return;
  const JobResult& result = status != nullptr ? status->result : finished->result;
  if (!protocol::is_terminal(result.state)) return;
  const Entry* entry = find(result.job);
  if (entry != nullptr && disk.find_ended(result.job) == nullptr && !is_of_earlier_life(*entry, result)) {
    fail(Invariant::kAckedJobKept, "the end of job " + result.job.hex() + " is told before it is on disk");
  }
  show(result, "sent");
}

void Ledger::check_dispatch(const protocol::Dispatch& dispatch, const OnDisk& disk) {
  for (const protocol::DispatchItem& item : dispatch.items) {
    ++dispatched_;
    const Entry* entry = find(item.job);
    if (entry == nullptr || disk.find_ended(item.job) != nullptr) continue;  // a Revoke follows
    const OnDisk::Open* open = disk.find_open(item.job);
    const bool counted = open != nullptr && open->highest_lease >= LeaseToken{dispatch.term, item.lease} &&
                         (entry->lease != item.lease || open->counted >= entry->lease_attempt);
    if (counted) continue;
    fail(Invariant::kAttemptsCounted, "job " + item.job.hex() + " is dispatched under lease " +
                                          std::to_string(item.lease) + ", which is not counted on disk");
  }
}

// Its end may still be under way when the job has another life.
bool Ledger::is_of_earlier_life(const Entry& entry, const JobResult& result) {
  return std::find(entry.past.begin(), entry.past.end(), digest_of(result)) != entry.past.end();
}

void Ledger::show(const JobResult& result, const char* where) {
  const auto found = entries_.find(result.job);
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  const End end{result.state, digest_of(result)};
  if (is_of_earlier_life(entry, result)) return;
  const auto differs = [&](const std::optional<End>& other) { return other && other->digest != end.digest; };
  if (differs(entry.shown) || differs(entry.end)) {
    fail(Invariant::kOneEnd, "job " + entry.id.hex() + " has two ends; the second, " + where + ": " +
                                 std::string(protocol::job_state_name(result.state)) + " '" + result.text + "'");
  }
  entry.shown = end;
}

void Ledger::on_client_got(const protocol::Message& message) {
  if (const auto* finished = std::get_if<protocol::JobFinished>(&message)) {
    show(finished->result, "received");
  } else if (const auto* status = std::get_if<protocol::JobStatus>(&message)) {
    if (protocol::is_terminal(status->result.state)) show(status->result, "received");
  }
}

void Ledger::on_outcome(const protocol::JobSpec& spec, const protocol::SubmitOutcome& outcome) {
  if (!outcome.job) return;
  const Entry* entry = find(*outcome.job);
  if (entry == nullptr) return;
  if (protocol::encode_job_payload(*entry->spec) != protocol::encode_job_payload(spec)) {
    fail(Invariant::kKeyNamesOneJob, "key " + entry->name + " with another payload answered with the job of the first");
  }
  const auto [known, is_new] = acked_names_.try_emplace(entry->name, entry->id);
  if (is_new || known->second == entry->id) return;
  const Entry* before = find(known->second);
  if (before != nullptr && !has_expired(*before)) {
    fail(Invariant::kKeyNamesOneJob, "key " + entry->name + " was acknowledged as two jobs");
  }
  known->second = entry->id;
}

void Ledger::on_cancel(const JobId& job) {
  if (const auto found = entries_.find(job); found != entries_.end()) found->second.cancelled = true;
}

void Ledger::on_cancel(const protocol::GetGroup& group) {
  for (auto& [id, entry] : entries_) {
    if (entry.spec->tenant == group.tenant && entry.spec->group == group.group) entry.cancelled = true;
  }
}

void Ledger::on_put_back(const JobId& job, uint64_t dead_order) {
  const auto found = entries_.find(job);
  if (found == entries_.end()) return;
  found->second.promised_order = std::max(found->second.promised_order, dead_order + 1);
}

void Ledger::on_purged(const JobId& job) {
  const auto found = entries_.find(job);
  if (found == entries_.end()) return;
  if (!found->second.end) {  // it was put back meanwhile, which a crash may undo
    found->second.acked = false;
    return;
  }
  if (found->second.end->state == JobState::kDead) purged_[job] = found->second.end->digest;
  for (auto* names : {&names_, &acked_names_}) {
    const auto name = names->find(found->second.name);
    if (name != names->end() && name->second == job) names->erase(name);
  }
  kept_until_.erase(found->second.order);
  entries_.erase(found);
}

void Ledger::on_expired(const JobId& job) {
  const Entry* entry = find(job);
  if (entry != nullptr && entry->end && !has_expired(*entry)) {
    fail(Invariant::kAckedJobKept, "the result of job " + job.hex() + " is removed before its time");
  }
  on_purged(job);
}

bool Ledger::has_expired(const Entry& entry) const {
  if (!entry.end) return false;
  const auto found = kept_until_.find(entry.order);
  return found == kept_until_.end() || found->second <= env_.now() + kClockRounding;
}

bool Ledger::is_gone(const JobId& job) const {
  const Entry* entry = find(job);
  return entry == nullptr || has_expired(*entry);
}

void Ledger::check_lost(const JobId& job) const {
  if (is_gone(job)) return;
  fail(Invariant::kAckedJobKept, "job " + job.hex() + " is there and its client was told that it is not known");
}

void Ledger::compare(const scheduler::SchedulerService& service, const OnDisk& disk) {
  const scheduler::JobTable& jobs = service.jobs();
  const auto differ = [&](const JobId& job, const std::string& what) {
    fail(Invariant::kJournalIsState, "job " + job.hex() + ": memory and journal differ in " + what);
  };
  for (const auto& [order, open] : disk.open) {
    const scheduler::Job* job = jobs.find(open.accepted.job);
    if (job == nullptr) differ(open.accepted.job, "whether it is open");
    if (job->order != order || job->attempts().count != open.attempts || job->attempts().crashes != open.crashes) {
      differ(job->id, "order, attempts or crashes");
    }
    const bool all_tokens = job->stage() == scheduler::Stage::kDecoding;
    if (job->lease().number != open.lease.number && !(job->lease().number == 0 && all_tokens)) {
      differ(job->id, "its lease");
    }
    // One that wants log-probabilities of its prompt starts again after a restart.
    const bool prefix = job->spec().prompt_logprobs ||
                        (open.progress.size() <= job->output().ids.size() &&
                         std::equal(open.progress.begin(), open.progress.end(), job->output().ids.begin()));
    if (!prefix) differ(job->id, "its progress");
    if (job->followers().subscriptions.size() > env_.settings.subscriptions_per_job_max) {
      fail(Invariant::kBounded,
           "job " + job->id.hex() + " has " + std::to_string(job->followers().subscriptions.size()) + " followers");
    }
  }
  if (jobs.size() != disk.open.size()) {
    fail(Invariant::kJournalIsState,
         std::to_string(jobs.size()) + " jobs in memory, " + std::to_string(disk.open.size()) + " open in the journal");
  }
}

void Ledger::check_times(const scheduler::SchedulerService& service) const {
  service.jobs().for_each([&](const scheduler::Job& job) {
    const Entry* entry = find(job.id);
    if (entry == nullptr || limit_of(*entry, job.lease().number != 0) > scheduler_now_) return;
    fail(Invariant::kInTime, "job " + job.id.hex() + " is open though its time has run out");
  });
}

protocol::GroupStatus Ledger::count(const protocol::GetGroup& group) const {
  protocol::GroupStatus counted;
  counted.request = group.request;
  for (const auto& [id, entry] : entries_) {
    if (entry.spec->tenant != group.tenant || entry.spec->group != group.group) continue;
    switch (entry.end ? entry.end->state : JobState::kQueued) {
      case JobState::kSucceeded:
        ++counted.succeeded;
        break;
      case JobState::kFailed:
        ++counted.failed;
        break;
      case JobState::kCancelled:
        ++counted.cancelled;
        break;
      case JobState::kExpired:
        ++counted.expired;
        break;
      case JobState::kDead:
        ++counted.dead;
        break;
      default:
        ++counted.open;
        break;
    }
  }
  return counted;
}

void Ledger::check_group(const protocol::GroupStatus& told, const protocol::GroupStatus& counted) const {
  if (told == counted) return;
  const auto text = [](const protocol::GroupStatus& status) {
    return std::to_string(status.open) + " open, " + std::to_string(status.succeeded) + " succeeded, " +
           std::to_string(status.failed) + " failed, " + std::to_string(status.cancelled) + " cancelled, " +
           std::to_string(status.expired) + " expired, " + std::to_string(status.dead) + " dead";
  };
  fail(Invariant::kGroupCounts, "a group is said to have " + text(told) + "; it has " + text(counted));
}

void Ledger::check_leases(const scheduler::SchedulerService& service) const {
  if (service.jobs().size() > env_.settings.open_jobs_max) {
    fail(Invariant::kBounded, std::to_string(service.jobs().size()) + " open jobs");
  }
  for (const auto kind : {protocol::ServiceKind::kWorker, protocol::ServiceKind::kConverter}) {
    for (const scheduler::ServiceEntry* entry : service.services().of_kind(kind)) {
      if (static_cast<int64_t>(entry->leases.size()) > entry->info.max_sequences) {
        fail(Invariant::kBounded, "a worker holds " + std::to_string(entry->leases.size()) + " leases");
      }
      for (const auto& [lease, job] : entry->leases) {
        if (job->lease().number != lease || job->lease().worker != entry) {
          fail(Invariant::kOneLease, "job " + job->id.hex() + " is held under lease " + std::to_string(lease) +
                                         ", its own is " + std::to_string(job->lease().number));
        }
      }
    }
  }
}

}  // namespace optserve::simulation
