// The journal's behaviour without a disk: records become durable later, and a crash loses those that are not.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "journal/journal.h"
#include "protocol/codec.h"

namespace optserve::scheduler::testing {

class SimulationStore final : public journal::JobStore {
 public:
  uint64_t append(journal::Record record) override {
    pending_.push_back(std::move(record));
    return durable_ + pending_.size();
  }
  uint64_t durable() const override { return durable_; }
  bool is_durable() const override { return true; }
  bool is_congested() const override { return pending_.size() > 4096; }
  bool is_full() const override { return false; }
  void ask(uint64_t request, journal::Question question) override {
    questions_.emplace_back(std::get<journal::FindResult>(question).job, request);
  }
  std::vector<journal::Answer> poll_answers() override {
    if (!pending_.empty()) return {};  // answers come after the records before them
    std::vector<journal::Answer> answers;
    for (const auto& [job, request] : std::exchange(questions_, {})) {
      const auto found = results_.find(job);
      answers.push_back(
          {request,
           journal::ResultFound{job, found == results_.end() ? std::nullopt : std::optional(found->second.result)}});
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
      if (std::exchange(leased_[order], false)) ++job.crashes, job.attempts = std::max(0, job.attempts - 1);
      recovery.open.push_back(job);
      recovery.next_order = std::max(recovery.next_order, order + 1);
    }
    for (const auto& [job, finished] : results_) {
      recovery.keys.push_back(
          {finished.tenant, finished.result.key, finished.payload_sha256, job, finished.expires_wall_ms});
      recovery.next_order = std::max(recovery.next_order, finished.order + 1);
    }
    return recovery;
  }

  const std::map<JobId, journal::Finished>& results() const { return results_; }
  size_t open_jobs() const { return open_.size(); }
  uint64_t second_terminals() const { return second_terminals_; }

 private:
  void apply(journal::Accepted& record) {
    record.spec = protocol::decode_job_spec(record.encoded_spec).value();
    journal::OpenJob job;
    job.accepted = record;
    open_[record.order] = std::move(job);
  }
  void apply(journal::Leased& record) {
    const auto found = open_.find(record.order);
    if (found == open_.end()) return;
    found->second.attempts = record.attempt;
    leased_[record.order] = record.token.number != 0;
  }
  void apply(journal::Progress& record) {
    if (const auto found = open_.find(record.order); found != open_.end()) found->second.progress = record.ids;
  }
  void apply(journal::Requeued&) {}
  void apply(journal::ModeSet&) {}
  void apply(journal::Finished& record) {
    if (open_.erase(record.order) == 0) {
      ++second_terminals_;
      return;
    }
    results_.emplace(record.result.job, std::move(record));
  }

  uint64_t term_ = 0;
  uint64_t durable_ = 0;
  std::vector<journal::Record> pending_;
  std::vector<std::pair<JobId, uint64_t>> questions_;
  std::map<uint64_t, journal::OpenJob> open_;
  std::map<uint64_t, bool> leased_;
  std::map<JobId, journal::Finished> results_;
  uint64_t second_terminals_ = 0;
};

}  // namespace optserve::scheduler::testing
