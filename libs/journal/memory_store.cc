#include <utility>

#include "journal/job_store.h"
#include "protocol/codec.h"

namespace optserve::journal {

bool matches(const protocol::JobFilter& filter, const Finished& ended) {
  const protocol::JobResult& result = ended.result;
  return (!filter.job || *filter.job == result.job) && (!filter.state || *filter.state == result.state) &&
         (!filter.tenant || *filter.tenant == ended.tenant) && (filter.model.empty() || filter.model == ended.model) &&
         (filter.group.empty() || filter.group == result.group);
}

protocol::JobSummary summary_of(const Finished& ended) {
  const protocol::JobResult& result = ended.result;
  return {result.job,
          ended.order,
          result.key,
          ended.tenant,
          result.group,
          ended.model,
          result.state,
          result.attempts,
          result.progress_done,
          result.progress_total,
          ended.accepted_wall_ms,
          result.message,
          result.kind};
}

const Finished* MemoryStore::find(const JobId& job) const {
  const auto found = orders_.find(job);
  return found == orders_.end() ? nullptr : &ended_.at(found->second);
}

void MemoryStore::forget(uint64_t order) {
  const auto found = ended_.find(order);
  if (found == ended_.end()) return;
  orders_.erase(found->second.result.job);
  ended_.erase(found);
}

uint64_t MemoryStore::append(Record record) {
  if (auto* finished = std::get_if<Finished>(&record)) {
    const uint64_t order = finished->order;
    if (orders_.try_emplace(finished->result.job, order).second) ended_.emplace(order, std::move(*finished));
    if (ended_.size() > results_max_) forget(ended_.begin()->first);
  } else if (const auto* requeued = std::get_if<Requeued>(&record)) {
    forget(requeued->dead_order);
  }
  return ++sequence_;
}

void MemoryStore::ask(uint64_t request, Question question) {
  answers_.push_back({request, std::visit([this](const auto& body) { return answer(body); }, question)});
}

std::vector<Answer> MemoryStore::poll_answers() { return std::exchange(answers_, {}); }

MemoryStore::Body MemoryStore::answer(const FindResult& question) const {
  const Finished* ended = find(question.job);
  return ResultFound{question.job, ended == nullptr ? std::nullopt : std::optional(ended->result)};
}

MemoryStore::Body MemoryStore::answer(const ListEnded& question) const {
  EndedListed listed;
  const auto add = [&](const Finished& ended) {
    if (!matches(question.filter, ended)) return;
    listed.more = listed.jobs.size() >= question.limit;
    if (!listed.more) listed.jobs.push_back(summary_of(ended));
  };
  if (question.newest_first) {
    auto it = question.after == 0 ? ended_.end() : ended_.lower_bound(question.after);
    while (it != ended_.begin() && !listed.more) add((--it)->second);
  } else {
    for (auto it = ended_.upper_bound(question.after); it != ended_.end() && !listed.more; ++it) add(it->second);
  }
  return listed;
}

MemoryStore::Body MemoryStore::answer(const FindDead& question) const {
  const Finished* ended = find(question.job);
  if (ended == nullptr || ended->result.state != protocol::JobState::kDead) return DeadFound{};
  auto spec = protocol::decode_job_spec(ended->encoded_spec);
  if (!spec.ok()) return spec.refusal();
  Accepted accepted;
  accepted.job = question.job;
  accepted.accepted_wall_ms = ended->accepted_wall_ms;
  accepted.payload_sha256 = ended->payload_sha256;
  accepted.spec = std::move(spec).value();
  accepted.encoded_spec = ended->encoded_spec;
  return DeadFound{ended->order, std::move(accepted)};
}

MemoryStore::Body MemoryStore::answer(const PurgeEnded& question) {
  EndedPurged purged;
  std::vector<uint64_t> orders;
  for (const auto& [order, ended] : ended_) {
    if (!matches(question.filter, ended)) continue;
    const protocol::JobResult& result = ended.result;
    purged.forgotten.push_back(
        {ended.tenant, result.key, ended.payload_sha256, result.job, ended.expires_at_ms, result.group, result.state});
    orders.push_back(order);
  }
  for (const uint64_t order : orders) forget(order);
  return purged;
}

MemoryStore::Body MemoryStore::answer(const BackUp&) const {
  return refuse(ErrorCode::kUnavailable, "the scheduler runs without a journal: there is nothing to back up");
}

}  // namespace optserve::journal
