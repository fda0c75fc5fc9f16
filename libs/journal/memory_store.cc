#include <utility>

#include "journal/journal.h"

namespace optserve::journal {

uint64_t MemoryStore::append(Record record) {
  if (auto* finished = std::get_if<Finished>(&record)) {
    const JobId job = finished->result.job;
    if (results_.try_emplace(job, std::move(finished->result)).second) oldest_first_.push_back(job);
    if (oldest_first_.size() > results_max_) {
      results_.erase(oldest_first_.front());
      oldest_first_.pop_front();
    }
  }
  return ++sequence_;
}

void MemoryStore::request_result(const JobId& job, uint64_t request) {
  const auto found = results_.find(job);
  answers_.push_back({request, job, found == results_.end() ? std::nullopt : std::optional(found->second)});
}

std::vector<JobStore::ResultAnswer> MemoryStore::poll_results() { return std::exchange(answers_, {}); }

}  // namespace optserve::journal
