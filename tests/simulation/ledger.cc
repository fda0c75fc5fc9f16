#include "simulation/ledger.h"

#include <algorithm>
#include <utility>

#include "simulation/simulated_store.h"

namespace optserve::simulation {
namespace {

using protocol::JobResult;
using protocol::JobState;

std::string name_of(const protocol::JobSpec& spec) { return spec.tenant + '/' + spec.key; }

uint64_t digest_of(const JobResult& result) {
  uint64_t digest = mix(static_cast<uint64_t>(result.state), static_cast<uint64_t>(result.finish_reason));
  digest = mix(digest, std::hash<std::string>()(result.text));
  for (const TokenId id : result.ids) digest = mix(digest, static_cast<uint64_t>(id));
  return mix(digest, result.error ? static_cast<uint64_t>(*result.error) : 0);
}

Ledger::End end_of(const journal::Finished& record) {
  return {record.result.state, digest_of(record.result), record.expires_wall_ms};
}

}  // namespace

void Ledger::fail(Invariant invariant, const std::string& what) const { throw Violation(invariant, what); }

const Ledger::Entry* Ledger::find(const JobId& job) const {
  const auto found = entries_.find(job);
  return found == entries_.end() ? nullptr : &found->second;
}

Ledger::Entry& Ledger::entry_of(const JobId& job) {
  const auto found = entries_.find(job);
  if (found == entries_.end()) fail(Invariant::kJournalIsState, "a record of job " + job.hex() + ", never accepted");
  return found->second;
}

std::vector<const Ledger::Entry*> Ledger::open_entries() const {
  std::vector<const Entry*> open;
  for (const auto& [id, entry] : entries_) {
    if (!entry.end) open.push_back(&entry);
  }
  std::sort(open.begin(), open.end(), [](const Entry* a, const Entry* b) { return a->order < b->order; });
  return open;
}

void Ledger::set_clock(Instant scheduler_now, int64_t wall_ms) {
  scheduler_now_ = scheduler_now;
  wall_ms_ = wall_ms;
  wall_max_ = std::max(wall_max_, wall_ms);
}

void Ledger::on_start(const journal::Recovery& recovery, const OnDisk& disk, Instant start, int64_t wall_ms) {
  set_clock(start, wall_ms);
  term_ = recovery.term;
  ++starts_;
  current_leases_.clear();
  for (auto it = entries_.begin(); it != entries_.end();) {
    Entry& entry = it->second;
    entry.lease = 0;
    entry.end.reset();
    if (const OnDisk::Open* open = disk.find_open(entry.id)) {
      const int64_t age = std::max<int64_t>(0, wall_ms - open->accepted.accepted_wall_ms);
      entry.deadline = start + milliseconds(std::max<int64_t>(0, entry.spec->delay_ms + entry.spec->ttl_ms - age));
      entry.attempts = open->attempts;
    } else if (const journal::Finished* ended = disk.find_ended(entry.id)) {
      entry.end = end_of(*ended);
    } else if (entry.acked) {
      fail(Invariant::kAckedJobKept, "job " + entry.id.hex() + " was acknowledged and is not there after a restart");
    } else {
      if (const auto name = names_.find(entry.name); name != names_.end() && name->second == entry.id) {
        names_.erase(name);
      }
      it = entries_.erase(it);
      continue;
    }
    if (entry.shown && !entry.end) {
      fail(Invariant::kOneEnd, "job " + entry.id.hex() + " had ended for a client and is open after a restart");
    }
    ++it;
  }
}

void Ledger::on_append(const journal::Record& record) {
  std::visit([this](const auto& body) { on(body); }, record);
}

void Ledger::on(const journal::Accepted& record) {
  auto spec = record.encoded_spec.empty() ? Result<protocol::JobSpec>(record.spec)
                                          : protocol::decode_job_spec(record.encoded_spec);
  Entry entry;
  entry.id = record.job;
  entry.spec = std::make_shared<const protocol::JobSpec>(std::move(spec).value());
  entry.name = name_of(*entry.spec);
  entry.order = record.order;
  entry.deadline = scheduler_now_ + milliseconds(entry.spec->delay_ms + entry.spec->ttl_ms);
  if (const auto known = names_.find(entry.name); known != names_.end()) {
    const Entry* before = find(known->second);
    if (before != nullptr && !(before->end && before->end->expires_wall_ms <= wall_max_)) {
      fail(Invariant::kKeyNamesOneJob, "key " + entry.name + " of job " + before->id.hex() + " made another job");
    }
  }
  names_[entry.name] = entry.id;
  ++accepted_;
  if (!entries_.emplace(entry.id, std::move(entry)).second) {
    fail(Invariant::kKeyNamesOneJob, "two jobs have the id " + record.job.hex());
  }
}

void Ledger::on(const journal::Leased& record) {
  Entry& entry = entry_of(record.job);
  const std::string job = "job " + record.job.hex();
  if (entry.end) fail(Invariant::kOneEnd, job + " has ended and gets or loses a lease");
  if (record.token.number == 0) {
    current_leases_.erase(entry.lease);
    entry.lease = 0;
    if (record.attempt != entry.attempts && record.attempt != entry.attempts - 1) {
      fail(Invariant::kAttemptsCounted,
           job + ": " + std::to_string(entry.attempts) + " attempts became " + std::to_string(record.attempt));
    }
    entry.attempts = record.attempt;
    return;
  }
  if (entry.lease != 0) {
    fail(Invariant::kOneLease, job + " is leased under " + std::to_string(record.token.number) + " while the lease " +
                                   std::to_string(entry.lease) + " holds");
  }
  if (record.token.term != term_) fail(Invariant::kOneLease, job + " is leased in another term");
  if (record.attempt != entry.attempts + 1 || record.attempt > entry.spec->max_attempts) {
    fail(Invariant::kAttemptsCounted, job + ": attempt " + std::to_string(record.attempt) + " of " +
                                          std::to_string(entry.spec->max_attempts) + " after " +
                                          std::to_string(entry.attempts));
  }
  if (scheduler_now_ >= entry.deadline) {
    const auto late = std::chrono::duration_cast<microseconds>(scheduler_now_ - entry.deadline).count();
    fail(Invariant::kNoExpiredDispatch, job + " is leased " + std::to_string(late) + " us after its time ran out");
  }
  entry.lease = record.token.number;
  entry.attempts = entry.lease_attempt = record.attempt;
  current_leases_[entry.lease] = entry.id;
}

void Ledger::on(const journal::Progress& record) {
  check_ids(*entry_of(record.job).spec, record.ids, Invariant::kCurrentToken);
}

void Ledger::on(const journal::Finished& record) {
  Entry& entry = entry_of(record.result.job);
  if (entry.end) fail(Invariant::kOneEnd, "job " + entry.id.hex() + " ends a second time");
  if (record.token.number != 0 && record.token != LeaseToken{term_, entry.lease}) {
    fail(Invariant::kCurrentToken, "job " + entry.id.hex() + " is ended by lease " +
                                       std::to_string(record.token.number) + ", its present one is " +
                                       std::to_string(entry.lease));
  }
  check_end(entry, record.result);
  entry.end = end_of(record);
  current_leases_.erase(entry.lease);
  entry.lease = 0;
  ++ended_;
  if (record.result.state == JobState::kSucceeded) ++succeeded_;
}

void Ledger::check_ids(const protocol::JobSpec& spec, const std::vector<TokenId>& ids, Invariant invariant) const {
  for (size_t position = 0; position < ids.size(); ++position) {
    if (ids[position] == env_.model.token(spec.sampling, position)) continue;
    fail(invariant, "job with key " + spec.key + " took a token at position " + std::to_string(position) +
                        " that its model does not give");
  }
}

const Model::Reference& Ledger::reference(const protocol::JobSpec& spec) const {
  // A key may be used again with another payload, once nothing is known of the first.
  std::string asked = name_of(spec) + '/' + std::to_string(spec.max_new_tokens);
  if (reference_of_ != asked) {
    reference_ = env_.model.reference(spec);
    reference_of_ = std::move(asked);
  }
  return reference_;
}

void Ledger::check_end(const Entry& entry, const JobResult& result) const {
  const std::string job = "job " + entry.id.hex() + " (" + entry.name + ")";
  check_ids(*entry.spec, result.ids, Invariant::kCurrentToken);
  check_result(*entry.spec, result);
  if (result.attempts > entry.spec->max_attempts) {
    fail(Invariant::kAttemptsCounted, job + " ended after " + std::to_string(result.attempts) + " attempts");
  }
  switch (result.state) {
    case JobState::kCancelled:
      if (!entry.cancelled) fail(Invariant::kOneEnd, job + " was cancelled though nobody asked for it");
      break;
    case JobState::kExpired:
      if (scheduler_now_ < entry.deadline) fail(Invariant::kOneEnd, job + " expired before its time");
      break;
    case JobState::kDead:
      if (result.attempts < entry.spec->max_attempts && starts_ <= 3) {
        fail(Invariant::kAttemptsCounted,
             job + " is dead after " + std::to_string(result.attempts) + " attempts: " + result.message);
      }
      break;
    case JobState::kFailed: {
      const bool too_long = result.error == ErrorCode::kPromptTooLong && entry.spec->prompt.size() > 200;
      const bool unanswered = result.error == ErrorCode::kInternal && env_.settings.fault_time > Duration::zero();
      if (!too_long && !unanswered) fail(Invariant::kOneEnd, job + " failed without a reason: " + result.message);
      break;
    }
    default:
      break;
  }
}

void Ledger::check_result(const protocol::JobSpec& spec, const JobResult& result) const {
  const Model::Reference& expected = reference(spec);
  if (result.state != JobState::kSucceeded) {
    check_stream(spec, result.text);
    return;
  }
  if (result.text != expected.text || result.ids != expected.ids || result.finish_reason != expected.reason) {
    fail(Invariant::kStreamWhole, "job with key " + spec.key + " ended with '" + result.text + "', " +
                                      std::to_string(result.ids.size()) + " ids, expected '" + expected.text + "', " +
                                      std::to_string(expected.ids.size()) + " ids");
  }
  if (spec.prompt_logprobs && result.prompt_logprobs.size() + 1 != static_cast<size_t>(result.prompt_tokens)) {
    fail(Invariant::kStreamWhole, "job with key " + spec.key + " has " + std::to_string(result.prompt_logprobs.size()) +
                                      " log-probabilities for " + std::to_string(result.prompt_tokens) + " ids");
  }
}

void Ledger::check_stream(const protocol::JobSpec& spec, const std::string& text) const {
  const Model::Reference& expected = reference(spec);
  if (expected.text.compare(0, text.size(), text) == 0) return;
  fail(Invariant::kStreamWhole,
       "job with key " + spec.key + " streamed '" + text + "', expected the beginning of '" + expected.text + "'");
}

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
  if (disk.find_ended(result.job) == nullptr && entries_.contains(result.job)) {
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

void Ledger::show(const JobResult& result, const char* where) {
  const auto found = entries_.find(result.job);
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  const End end{result.state, digest_of(result), 0};
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
  if (before != nullptr && !(before->end && before->end->expires_wall_ms <= wall_max_)) {
    fail(Invariant::kKeyNamesOneJob, "key " + entry->name + " was acknowledged as two jobs");
  }
  known->second = entry->id;
}

void Ledger::on_cancel(const JobId& job) {
  if (const auto found = entries_.find(job); found != entries_.end()) found->second.cancelled = true;
}

void Ledger::on_purged(const JobId& job) {
  const auto found = entries_.find(job);
  if (found == entries_.end()) return;
  for (auto* names : {&names_, &acked_names_}) {
    const auto name = names->find(found->second.name);
    if (name != names->end() && name->second == job) names->erase(name);
  }
  entries_.erase(found);
}

bool Ledger::is_gone(const JobId& job) const {
  const Entry* entry = find(job);
  return entry == nullptr || (entry->end && entry->end->expires_wall_ms <= wall_max_);
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
    if (job->order != order || job->attempts != open.attempts || job->crashes != open.crashes) {
      differ(job->id, "order, attempts or crashes");
    }
    const bool all_tokens = job->stage == scheduler::Stage::kDecoding;
    if (job->lease != open.lease.number && !(job->lease == 0 && all_tokens)) differ(job->id, "its lease");
    // One that wants log-probabilities of its prompt starts again after a restart.
    const bool prefix =
        job->spec.prompt_logprobs || (open.progress.size() <= job->output.size() &&
                                      std::equal(open.progress.begin(), open.progress.end(), job->output.begin()));
    if (!prefix) differ(job->id, "its progress");
    if (job->subscriptions.size() > env_.settings.subscriptions_per_job_max) {
      fail(Invariant::kBounded,
           "job " + job->id.hex() + " has " + std::to_string(job->subscriptions.size()) + " followers");
    }
  }
  if (jobs.size() != disk.open.size()) {
    fail(Invariant::kJournalIsState,
         std::to_string(jobs.size()) + " jobs in memory, " + std::to_string(disk.open.size()) + " open in the journal");
  }
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
        if (job->lease != lease || job->worker != entry) {
          fail(Invariant::kOneLease, "job " + job->id.hex() + " is held under lease " + std::to_string(lease) +
                                         ", its own is " + std::to_string(job->lease));
        }
      }
    }
  }
}

}  // namespace optserve::simulation
