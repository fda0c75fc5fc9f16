// A journal without a disk whose test says when records become durable (sync) and when the process ends (crash), which
// loses what was not durable.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "journal/journal.h"
#include "protocol/codec.h"

namespace optserve::simulation {

class ManualStore final : public journal::JobStore {
 public:
  uint64_t append(journal::Record record) override {
    pending_.push_back(std::move(record));
    return durable_ + pending_.size();
  }
  uint64_t durable() const override { return durable_; }
  bool is_durable() const override { return true; }
  int64_t time_ms(Instant now) const override {
    return std::chrono::floor<milliseconds>(now.time_since_epoch()).count();
  }
  bool is_congested() const override { return pending_.size() > 4096; }
  bool is_full() const override { return false; }
  void ask(uint64_t request, journal::Question question) override {
    questions_.emplace_back(std::move(question), request);
  }
  std::vector<journal::Answer> poll_answers() override {
    if (!pending_.empty()) return {};  // answers come after the records before them
    std::vector<journal::Answer> answers;
    for (const auto& [question, request] : std::exchange(questions_, {})) {
      answers.push_back({request, std::visit([this](const auto& body) { return answer(body); }, question)});
    }
    return answers;
  }

  // One group commit.
  void sync() {
    for (journal::Record& record : std::exchange(pending_, {})) {
      std::visit([this](auto& body) { apply(body); }, record);
      ++durable_;
    }
  }
  // Loses what is not durable; the next process begins a new term.
  journal::Recovery crash() {
    pending_.clear();
    questions_.clear();
    durable_ = 0;
    journal::Recovery recovery;
    recovery.term = ++term_;
    for (auto& [order, job] : open_) {
      if (std::exchange(leases_[order], {}).number != 0) {
        ++job.crashes;
        job.attempts = std::max(0, job.attempts - 1);
      }
      recovery.open.push_back(job);
    }
    for (const auto& [job, finished] : results_) {
      recovery.keys.push_back(known_key(finished));
    }
    recovery.next_order = std::max(recovery.next_order, highest_order_ + 1);
    for (const auto& [name, mode] : modes_) recovery.modes.push_back({name.first, name.second, mode});
    return recovery;
  }

  const std::map<JobId, journal::Finished>& results() const { return results_; }
  size_t open_jobs() const { return open_.size(); }
  uint64_t second_terminals() const { return second_terminals_; }
  // Results under a token that was not the job's lease: refused.
  uint64_t fenced() const { return fenced_; }

 private:
  using Body = decltype(journal::Answer::body);
  static journal::KnownKey known_key(const journal::Finished& ended) {
    return {ended.tenant,        ended.result.key,   ended.payload_sha256, ended.result.job,
            ended.expires_at_ms, ended.result.group, ended.result.state};
  }
  Body answer(const journal::FindResult& question) const {
    const auto found = results_.find(question.job);
    return journal::ResultFound{question.job,
                                found == results_.end() ? std::nullopt : std::optional(found->second.result)};
  }
  Body answer(const journal::ListEnded& question) const {
    std::map<uint64_t, const journal::Finished*> by_order;
    for (const auto& [job, ended] : results_) {
      if (ended.order > question.after && journal::matches(question.filter, ended)) by_order[ended.order] = &ended;
    }
    journal::EndedListed listed;
    for (const auto& [order, ended] : by_order) {
      if (listed.jobs.size() >= question.limit) {
        listed.more = true;
        break;
      }
      listed.jobs.push_back(journal::summary_of(*ended));
    }
    return listed;
  }
  Body answer(const journal::FindDead& question) const {
    const auto found = results_.find(question.job);
    if (found == results_.end() || found->second.result.state != protocol::JobState::kDead) return journal::DeadFound{};
    const journal::Finished& ended = found->second;
    journal::Accepted accepted{question.job,      0, 0, ended.accepted_wall_ms, ended.payload_sha256, {},
                               ended.encoded_spec};
    accepted.spec = protocol::decode_job_spec(ended.encoded_spec).value();
    return journal::DeadFound{ended.order, std::move(accepted)};
  }
  Body answer(const journal::PurgeEnded& question) {
    journal::EndedPurged purged;
    std::erase_if(results_, [&](const auto& item) {
      if (!journal::matches(question.filter, item.second)) return false;
      purged.forgotten.push_back(known_key(item.second));
      return true;
    });
    return purged;
  }
  Body answer(const journal::BackUp&) const { return journal::BackUpDone{"simulated", 1}; }

  void apply(journal::Accepted& record) {
    record.spec = protocol::decode_job_spec(record.encoded_spec).value();
    highest_order_ = std::max(highest_order_, record.order);
    journal::OpenJob job;
    job.accepted = record;
    open_[record.order] = std::move(job);
  }
  void apply(journal::Leased& record) {
    const auto found = open_.find(record.order);
    if (found == open_.end()) return;
    found->second.attempts = record.attempt;
    leases_[record.order] = record.token;
    if (!record.loss.empty()) found->second.losses.push_back(record.loss);
  }
  void apply(journal::Progress& record) {
    if (const auto found = open_.find(record.order); found != open_.end()) found->second.progress = record.ids;
  }
  void apply(journal::Requeued& record) {
    results_.erase(record.accepted.job);
    apply(record.accepted);
  }
  void apply(journal::ModeSet& record) {
    modes_[{record.scope, record.name}] = record.mode;
    if (record.mode == protocol::QueueMode::kOpen) modes_.erase({record.scope, record.name});
  }
  void apply(journal::Finished& record) {
    if (record.token.number != 0 && record.token != leases_[record.order]) {
      ++fenced_;
      return;
    }
    leases_.erase(record.order);
    if (open_.erase(record.order) == 0) {
      ++second_terminals_;
      return;
    }
    results_.emplace(record.result.job, std::move(record));
  }

  uint64_t term_ = 0;
  uint64_t durable_ = 0;
  std::vector<journal::Record> pending_;
  std::vector<std::pair<journal::Question, uint64_t>> questions_;
  std::map<uint64_t, journal::OpenJob> open_;
  std::map<uint64_t, LeaseToken> leases_;
  std::map<std::pair<protocol::ControlScope, std::string>, protocol::QueueMode> modes_;
  uint64_t highest_order_ = 0;
  std::map<JobId, journal::Finished> results_;
  uint64_t second_terminals_ = 0;
  uint64_t fenced_ = 0;
};

}  // namespace optserve::simulation
