#include "simulation/ledger.h"

#include <algorithm>
#include <utility>

#include "simulation/nodes/simulated_store.h"

namespace optserve::simulation {
namespace {

using protocol::JobResult;
using protocol::JobState;

constexpr Duration kDeadKept = seconds(7 * 24 * 3'600);

std::string name_of(const protocol::JobSpec& spec) { return spec.tenant + '/' + spec.key; }

}  // namespace

void Ledger::fail(Invariant invariant, const std::string& what) const { throw Violation(invariant, what); }

uint64_t Ledger::digest_of(const JobResult& result) {
  uint64_t digest = mix(static_cast<uint64_t>(result.state), static_cast<uint64_t>(result.finish_reason));
  digest = mix(digest, std::hash<std::string>()(result.text));
  for (const TokenId id : result.ids) digest = mix(digest, static_cast<uint64_t>(id));
  return mix(digest, result.error ? static_cast<uint64_t>(*result.error) : 0);
}

Ledger::End Ledger::end_of(const journal::Finished& record) { return {record.result.state, digest_of(record.result)}; }

const Ledger::Entry* Ledger::find(const JobId& job) const {
  const auto found = entries_.find(job);
  return found == entries_.end() ? nullptr : &found->second;
}

Ledger::Entry& Ledger::entry_of(const JobId& job) {
  const auto found = entries_.find(job);
  if (found == entries_.end()) fail(Invariant::kJournalIsState, "a record of job " + job.hex() + ", never accepted");
  return found->second;
}

template <class F>
std::vector<const Ledger::Entry*> Ledger::entries_that(F&& are) const {
  std::vector<const Entry*> found;
  for (const auto& [id, entry] : entries_) {
    if (are(entry)) found.push_back(&entry);
  }
  std::sort(found.begin(), found.end(), [](const Entry* a, const Entry* b) { return a->order < b->order; });
  return found;
}

std::vector<const Ledger::Entry*> Ledger::open_entries() const {
  return entries_that([](const Entry& entry) { return !entry.end; });
}

std::vector<const Ledger::Entry*> Ledger::dead_entries() const {
  return entries_that([](const Entry& entry) { return entry.end && entry.end->state == JobState::kDead; });
}

void Ledger::on_start(const journal::Recovery& recovery, const OnDisk& disk, Instant start, int64_t store_ms) {
  set_clock(start);
  term_ = recovery.term;
  ++starts_;
  current_leases_.clear();
  shares_.on_start();
  held_.clear();
  for (const journal::ModeSet& held : disk.modes) on(held);
  for (auto it = entries_.begin(); it != entries_.end();) {
    Entry& entry = it->second;
    entry.lease = 0;
    entry.end.reset();
    if (const OnDisk::Open* open = disk.find_open(entry.id)) {
      entry.order = open->accepted.order;
      entry.attempts = open->attempts;
      entry.started = open->attempts > 0 || open->crashes > 0 ||
                      (!open->progress.empty() && !entry.spec->prompt_logprobs);  // else it starts from nothing
      const int64_t age = store_ms - open->accepted.accepted_at_ms;
      if (milliseconds(age) > start - entry.accepted_at + kClockRounding) {
        fail(Invariant::kInTime, "job " + entry.id.hex() + " is " + std::to_string(age) + " ms old after a restart, " +
                                     "which is more than the time that has passed");
      }
      set_times(entry, age);
    } else if (const journal::Finished* ended = disk.find_ended(entry.id)) {
      entry.order = ended->order;
      entry.end = end_of(*ended);
      std::erase(entry.past, entry.end->digest);
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
    if (entry.order < entry.promised_order) {
      fail(Invariant::kAckedJobKept, "job " + entry.id.hex() + " was put back and is not in the queue after a restart");
    }
    ++it;
  }
}

void Ledger::on_append(const journal::Record& record) {
  std::visit([this](const auto& body) { on(body); }, record);
}

// As the scheduler counts it.
void Ledger::set_times(Entry& entry, int64_t age_ms) const {
  const int64_t longest = entry.spec->delay_ms + entry.spec->ttl_ms;
  const int64_t age = std::clamp<int64_t>(age_ms, 0, longest);
  entry.begins = scheduler_now_ + milliseconds(entry.spec->delay_ms - age);
  entry.deadline = scheduler_now_ + milliseconds(longest - age);
}

Instant Ledger::limit_of(const Entry& entry, bool runs) {
  Instant limit = entry.deadline;
  const protocol::JobSpec& spec = *entry.spec;
  if (runs && spec.run_ms > 0) limit = std::min(limit, entry.attempt_at + milliseconds(spec.run_ms));
  if (!entry.started && spec.queue_ms > 0) limit = std::min(limit, entry.begins + milliseconds(spec.queue_ms));
  return limit;
}

bool Ledger::has_mode(protocol::ControlScope scope, const std::string& name, protocol::QueueMode mode) const {
  const auto found = held_.find({scope, name});
  return found != held_.end() && found->second == mode;
}

void Ledger::check_open_for(const protocol::JobSpec& spec) const {
  if (has_mode(protocol::ControlScope::kQueue, "", protocol::QueueMode::kDraining) ||
      has_mode(protocol::ControlScope::kModel, spec.model, protocol::QueueMode::kDraining)) {
    fail(Invariant::kHeld, "job " + name_of(spec) + " is accepted though its queue is draining");
  }
}

Ledger::Entry& Ledger::add(const journal::Accepted& record) {
  auto spec = record.encoded_spec.empty() ? Result<protocol::JobSpec>(record.spec)
                                          : protocol::decode_job_spec(record.encoded_spec);
  Entry entry;
  entry.id = record.job;
  entry.spec = std::make_shared<const protocol::JobSpec>(std::move(spec).value());
  entry.name = name_of(*entry.spec);
  entry.order = record.order;
  entry.accepted_at = scheduler_now_;
  set_times(entry, 0);
  const auto [added, is_new] = entries_.emplace(record.job, std::move(entry));
  if (!is_new) fail(Invariant::kKeyNamesOneJob, "two jobs have the id " + record.job.hex());
  return added->second;
}

void Ledger::on(const journal::Accepted& record) {
  const Entry& entry = add(record);
  check_open_for(*entry.spec);
  if (const auto known = names_.find(entry.name); known != names_.end()) {
    const Entry* before = find(known->second);
    if (before != nullptr && !has_expired(*before)) {
      fail(Invariant::kKeyNamesOneJob, "key " + entry.name + " of job " + before->id.hex() + " made another job");
    }
  }
  names_[entry.name] = entry.id;
  ++accepted_;
}

void Ledger::on(const journal::Requeued& record) {
  const auto known = entries_.find(record.accepted.job);
  if (known == entries_.end()) {  // purged while it was looked up
    Entry& entry = add(record.accepted);
    check_open_for(*entry.spec);
    names_.try_emplace(entry.name, entry.id);
    if (const auto end = purged_.find(entry.id); end != purged_.end()) entry.past.push_back(end->second);
    ++put_back_;
    return;
  }
  Entry& entry = known->second;
  check_open_for(*entry.spec);
  if (!entry.end || entry.end->state != JobState::kDead || record.accepted.order <= entry.order) {
    fail(Invariant::kOneEnd, "job " + entry.id.hex() + " is put back and was not dead");
  }
  entry.past.push_back(entry.end->digest);
  entry.end.reset();
  entry.shown.reset();
  entry.order = record.accepted.order;
  entry.attempts = entry.lease_attempt = 0;
  entry.started = false;
  entry.accepted_at = scheduler_now_;
  set_times(entry, 0);
  ++put_back_;
}

void Ledger::on(const journal::ModeSet& record) {
  held_[{record.scope, record.name}] = record.mode;
  if (record.mode == protocol::QueueMode::kOpen) held_.erase({record.scope, record.name});
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
  check_start(entry);
  entry.started = true;
  entry.attempt_at = scheduler_now_;
  entry.lease = record.token.number;
  entry.attempts = entry.lease_attempt = record.attempt;
  current_leases_[entry.lease] = entry.id;
  if (watches_shares()) {
    shares_.on_leased(service_->jobs(), entry.id, *entry.spec,
                      [this](const std::string& what) { fail(Invariant::kFairShare, what); });
  }
}

void Ledger::check_start(const Entry& entry) const {
  const std::string job = "job " + entry.id.hex();
  const auto us = [](Duration time) { return std::to_string(std::chrono::duration_cast<microseconds>(time).count()); };
  if (const Instant limit = limit_of(entry, false); scheduler_now_ >= limit) {
    fail(Invariant::kInTime, job + " is leased " + us(scheduler_now_ - limit) + " us after its time ran out");
  }
  if (scheduler_now_ < entry.begins) {
    fail(Invariant::kInTime, job + " is leased " + us(entry.begins - scheduler_now_) + " us before its delay is over");
  }
  if (has_mode(protocol::ControlScope::kQueue, "", protocol::QueueMode::kPaused) ||
      has_mode(protocol::ControlScope::kModel, entry.spec->model, protocol::QueueMode::kPaused)) {
    fail(Invariant::kHeld, job + " is leased though its queue is paused");
  }
  const scheduler::Job* leased = service_ != nullptr ? service_->jobs().find(entry.id) : nullptr;
  if (leased == nullptr || leased->lease().worker == nullptr) return;
  const protocol::Register& worker = leased->lease().worker->info;
  if (is_held(protocol::ControlScope::kService, worker.name) ||
      is_held(protocol::ControlScope::kService, worker.instance.hex())) {
    fail(Invariant::kHeld, job + " is leased to " + worker.name + ", which an operator holds");
  }
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
  const bool is_dead = record.result.state == JobState::kDead;
  const milliseconds kept(entry.spec->result_ttl_ms);
  kept_until_[record.order] = scheduler_now_ + (is_dead ? std::max<Duration>(kept, kDeadKept) : kept);
  current_leases_.erase(entry.lease);
  entry.lease = 0;
  ++ended_;
  if (watches_shares()) shares_.on_ended(service_->jobs(), entry.id, *entry.spec);
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
  // A key may be used again with another payload once nothing is known of the first job.
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
      if (scheduler_now_ < limit_of(entry, entry.lease != 0)) {
        fail(Invariant::kOneEnd, job + " expired before its time: " + result.message);
      }
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

}  // namespace optserve::simulation
