#include "scheduler/jobs/job_table.h"

#include <string>
#include <utility>

#include "base/check.h"
#include "scheduler/jobs/job_times.h"

namespace optserve::scheduler {
namespace {

constexpr std::string_view kStageNames[] = {"accepted", "delayed",  "encoding", "waiting",
                                            "leased",   "decoding", "ended"};
static_assert(std::size(kStageNames) == kStages);

// The same as kMoves, to be looked up by a move.
constexpr auto kAllowed = [] {
  std::array<std::array<bool, kStages>, kStages> allowed{};
  for (const Move& move : kMoves) allowed[static_cast<size_t>(move.from)][static_cast<size_t>(move.to)] = true;
  return allowed;
}();

}  // namespace

std::string_view stage_name(Stage stage) { return kStageNames[static_cast<size_t>(stage)]; }

void JobLife::move(Stage to) {
  if (!kAllowed[static_cast<size_t>(stage_)][static_cast<size_t>(to)]) [[unlikely]] {
    check(false, "a job cannot move from " + std::string(stage_name(stage_)) + " to " + std::string(stage_name(to)));
  }
  last_open_ = to == Stage::kEnded ? stage_ : to;
  stage_ = to;
}

Job& JobTable::add(std::unique_ptr<Job> job) {
  check(job->stage() == Stage::kAccepted, "a job is new when it is added");
  Job& added = *job;
  added.times.deadline_ = deadlines_.emplace(next_limit(added).at, &added);
  ++counts_[static_cast<size_t>(added.stage())];
  const bool is_new = jobs_.emplace(added.id, std::move(job)).second;
  check(is_new, "two jobs with one id");
  return added;
}

Job* JobTable::find(const JobId& id) const {
  const auto found = jobs_.find(id);
  return found == jobs_.end() ? nullptr : found->second.get();
}

void JobTable::move(Job& job, Stage to) {
  --counts_[static_cast<size_t>(job.stage())];
  job.life.move(to);
  ++counts_[static_cast<size_t>(to)];
  if (to == Stage::kWaiting || to == Stage::kDelayed) {
    parked_.waits(job);
  } else {
    parked_.left(job);
  }
}

void JobTable::delay(Job& job, Instant until) {
  move(job, Stage::kDelayed);
  job.times.delayed_until_ = until;
  delayed_.emplace(std::pair(until, job.order), &job);
}

Job* JobTable::take_undelayed(Instant now) {
  if (delayed_.empty() || delayed_.begin()->first.first > now) return nullptr;
  Job* job = delayed_.begin()->second;
  delayed_.erase(delayed_.begin());
  return job;
}

void JobTable::end(Job& job) {
  if (job.stage() == Stage::kDelayed) delayed_.erase({job.times.delayed_until_, job.order});
  move(job, Stage::kEnded);
  --counts_[static_cast<size_t>(Stage::kEnded)];
  deadlines_.erase(job.times.deadline_);
  const auto found = jobs_.find(job.id);
  check(found != jobs_.end(), "the job that ends is in the table");
  ended_.push_back(std::move(found->second));
  jobs_.erase(found);
}

void JobTable::update_deadline(Job& job) {
  const Instant deadline = next_limit(job).at;
  if (job.times.deadline_->first == deadline) return;
  auto node = deadlines_.extract(job.times.deadline_);
  node.key() = deadline;
  job.times.deadline_ = deadlines_.insert(std::move(node));
}

Job* JobTable::expired(Instant now) const {
  return deadlines_.empty() || deadlines_.begin()->first > now ? nullptr : deadlines_.begin()->second;
}

}  // namespace optserve::scheduler
