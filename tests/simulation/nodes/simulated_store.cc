#include "simulation/nodes/simulated_store.h"

#include <algorithm>
#include <utility>

#include "protocol/codec.h"
#include "simulation/ledger.h"

namespace optserve::simulation {
namespace {

constexpr size_t kBatch = 512;  // records of one commit

}  // namespace

uint64_t SimulatedStore::append(journal::Record record) {
  if (env_.is_planted(Plant::kOldToken)) {
    if (auto* finished = std::get_if<journal::Finished>(&record); finished != nullptr && env_.dice.chance(0.2)) {
      const OnDisk::Open* open = disk_.find_open(finished->result.job);
      if (open != nullptr && open->highest_lease.number > 1) {
        finished->token = {open->highest_lease.term, open->highest_lease.number - 1};
      }
    }
  }
  const auto* lease = std::get_if<journal::Leased>(&record);
  const bool is_hidden = env_.is_planted(Plant::kLeaseStays) && lease != nullptr && lease->token.number == 0;
  if (!is_hidden) ledger_.on_append(record);
  pending_.push_back(std::move(record));
  ++appended_;
  if (env_.is_planted(Plant::kScan)) {
    uint64_t sum = 0;
    for (const auto& [order, open] : disk_.open) sum += disk_.orders.at(open.accepted.job);
    if (sum == 1) env_.note("scan", 0);
  }
  begin_commit();
  return appended_;
}

uint64_t SimulatedStore::durable() const {
  if (env_.is_planted(Plant::kEarlyDurable) && appended_ % 16 == 0) return appended_;
  return durable_;
}

void SimulatedStore::begin_commit() {
  if (is_committing_ || pending_.empty()) return;
  is_committing_ = true;
  const bool slow = env_.now() < slow_until_;
  const Duration delay = slow ? env_.dice.between(milliseconds(200), milliseconds(2'000))
                              : env_.dice.heavy_tail(microseconds(200), milliseconds(20));
  committing_ = std::min(pending_.size(), kBatch);
  env_.queue.after<&SimulatedStore::end_commit>(delay, *this, life_);
}

void SimulatedStore::end_commit(uint64_t life) {
  if (life != life_) return;
  is_committing_ = false;
  for (; committing_ > 0; --committing_) {
    write(std::move(pending_.front()));
    pending_.pop_front();
    ++durable_;
  }
  disk_.mark = time_.mark(listener_->local_now());
  purge();
  env_.note("commit", 0, "", durable_);
  if (!questions_.empty()) env_.queue.after<&SimulatedStore::answer_questions>(microseconds(50), *this, life_);
  begin_commit();
  listener_->on_durable();
}

void SimulatedStore::write(journal::Record record) {
  if (env_.is_planted(Plant::kLoseRecord) && env_.dice.chance(0.01)) return;
  std::visit([this](auto& body) { apply(body); }, record);
}

void SimulatedStore::ask(uint64_t request, journal::Question question) {
  questions_.push_back({request, appended_, std::move(question)});
  if (durable_ == appended_) env_.queue.after<&SimulatedStore::answer_questions>(microseconds(100), *this, life_);
}

void SimulatedStore::answer_questions(uint64_t life) {
  if (life != life_) return;
  const size_t before = answers_.size();
  std::erase_if(questions_, [&](const Asked& asked) {
    if (asked.after > durable_) return false;
    answers_.push_back({asked.request, std::visit([this](const auto& body) { return answer(body); }, asked.question)});
    return true;
  });
  if (answers_.size() != before) listener_->on_answers_ready();
}

SimulatedStore::Body SimulatedStore::answer(const journal::FindResult& question) const {
  const journal::Finished* ended = disk_.find_ended(question.job);
  if (ended == nullptr || is_expired(*ended)) return journal::ResultFound{question.job, std::nullopt};
  return journal::ResultFound{question.job, ended->result};
}

SimulatedStore::Body SimulatedStore::answer(const journal::FindDead& question) const {
  const journal::Finished* ended = disk_.find_ended(question.job);
  if (ended == nullptr || is_expired(*ended) || ended->result.state != protocol::JobState::kDead) {
    return journal::DeadFound{};
  }
  journal::Accepted accepted{question.job,       0, 0, ended->accepted_wall_ms, ended->payload_sha256, {},
                             ended->encoded_spec};
  accepted.spec = protocol::decode_job_spec(ended->encoded_spec).value();
  return journal::DeadFound{ended->order, std::move(accepted)};
}

SimulatedStore::Body SimulatedStore::answer(const journal::PurgeEnded& question) {
  journal::EndedPurged purged;
  for (const auto& [job, ended] : disk_.ended) {
    if (!journal::matches(question.filter, ended)) continue;
    purged.forgotten.push_back({ended.tenant, ended.result.key, ended.payload_sha256, job, ended.expires_at_ms,
                                ended.result.group, ended.result.state});
  }
  for (const journal::KnownKey& known : purged.forgotten) {
    forget_ended(known.job);
    ledger_.on_purged(known.job);
  }
  return purged;
}

SimulatedStore::Body SimulatedStore::answer(const journal::ListEnded&) const {
  return refuse(ErrorCode::kUnavailable, "the simulated journal makes no lists");
}

SimulatedStore::Body SimulatedStore::answer(const journal::BackUp&) const {
  return refuse(ErrorCode::kUnavailable, "the simulated journal makes no backups");
}

void SimulatedStore::crash() {
  if (is_committing_ && env_.dice.chance(0.5)) {  // the commit had happened, only nobody knew
    for (; committing_ > 0; --committing_) {
      write(std::move(pending_.front()));
      pending_.pop_front();
    }
  }
  pending_.clear();
  questions_.clear();
  answers_.clear();
  committing_ = 0;
  is_committing_ = false;
  appended_ = durable_ = 0;
  ++life_;
}

void SimulatedStore::commit_all() {
  for (journal::Record& record : std::exchange(pending_, {})) write(std::move(record));
  committing_ = 0;
  durable_ = appended_;
  disk_.mark = time_.mark(listener_->local_now());
}

int64_t SimulatedStore::now_ms() const {
  return time_.ms(listener_->local_now()) + (env_.is_planted(Plant::kWallClock) ? listener_->wall_offset_ms() : 0);
}

journal::Recovery SimulatedStore::recover() {
  time_ = LastingTime(disk_.mark, std::to_string(boot_), listener_->local_now());
  purge();
  journal::Recovery recovery;
  recovery.term = ++disk_.term;
  recovery.next_order = disk_.next_order;
  if (!env_.is_planted(Plant::kForgetModes)) recovery.modes = disk_.modes;
  for (auto& [order, open] : disk_.open) {
    if (std::exchange(open.lease, {}).number != 0) {
      ++open.crashes;
      open.attempts = std::max(0, open.attempts - 1);
    }
    open.highest_lease = {};
    journal::OpenJob job;
    job.accepted = open.accepted;
    job.accepted.spec = protocol::decode_job_spec(open.accepted.encoded_spec).value();
    job.attempts = open.attempts;
    job.crashes = open.crashes;
    job.losses = open.losses;
    job.progress = open.progress;
    recovery.open.push_back(std::move(job));
  }
  std::map<uint64_t, const journal::Finished*> by_order;
  for (const auto& [job, ended] : disk_.ended) by_order[ended.order] = &ended;
  if (env_.is_planted(Plant::kForgetKeys)) by_order.clear();
  for (const auto& [order, ended] : by_order) {
    if (is_expired(*ended)) continue;
    recovery.keys.push_back({ended->tenant, ended->result.key, ended->payload_sha256, ended->result.job,
                             ended->expires_at_ms, ended->result.group, ended->result.state});
    if (env_.is_planted(Plant::kForgetGroups)) recovery.keys.back().group.clear();
  }
  return recovery;
}

void SimulatedStore::purge() {
  const int64_t now = now_ms();
  while (!disk_.expiries.empty() && disk_.expiries.begin()->first <= now) {
    const JobId job = disk_.expiries.begin()->second;
    disk_.expiries.erase(disk_.expiries.begin());
    disk_.ended.erase(job);
    ledger_.on_expired(job);
  }
}

void SimulatedStore::forget_ended(const JobId& job) {
  const auto found = disk_.ended.find(job);
  if (found == disk_.ended.end()) return;
  const auto [first, last] = disk_.expiries.equal_range(found->second.expires_at_ms);
  disk_.expiries.erase(std::find_if(first, last, [&](const auto& expiry) { return expiry.second == job; }));
  disk_.ended.erase(found);
}

void SimulatedStore::apply(journal::Accepted& record) {
  if (record.encoded_spec.empty()) record.encoded_spec = protocol::encode_job_spec(record.spec);
  record.spec = {};
  disk_.next_order = std::max(disk_.next_order, record.order + 1);
  disk_.orders[record.job] = record.order;
  disk_.open[record.order].accepted = std::move(record);
}

void SimulatedStore::apply(journal::Leased& record) {
  const auto found = disk_.open.find(record.order);
  if (found == disk_.open.end()) return;
  OnDisk::Open& open = found->second;
  open.lease = record.token;
  if (!record.loss.empty()) open.losses.push_back(record.loss);
  open.highest_lease = std::max(open.highest_lease, record.token.number == 0 ? LeaseToken{} : record.token);
  if (env_.is_planted(Plant::kForgetAttempts) && env_.dice.chance(0.05)) return;
  open.attempts = record.attempt;
  open.counted = std::max(open.counted, record.attempt);
}

void SimulatedStore::apply(journal::Progress& record) {
  const auto found = disk_.open.find(record.order);
  if (found != disk_.open.end()) found->second.progress = std::move(record.ids);
}

void SimulatedStore::apply(journal::Finished& record) {
  const auto found = disk_.open.find(record.order);
  if (found == disk_.open.end()) return;  // the first one stands
  disk_.orders.erase(found->second.accepted.job);
  disk_.open.erase(found);
  disk_.expiries.emplace(record.expires_at_ms, record.result.job);
  disk_.ended.insert_or_assign(record.result.job, std::move(record));
}

void SimulatedStore::apply(journal::Requeued& record) {
  forget_ended(record.accepted.job);
  apply(record.accepted);
}

void SimulatedStore::apply(journal::ModeSet& record) {
  std::erase_if(disk_.modes,
                [&](const journal::ModeSet& mode) { return mode.scope == record.scope && mode.name == record.name; });
  if (record.mode != protocol::QueueMode::kOpen) disk_.modes.push_back(std::move(record));
}

}  // namespace optserve::simulation
