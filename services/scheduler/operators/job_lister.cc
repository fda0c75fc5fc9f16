#include "scheduler/operators/job_lister.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "scheduler/jobs/whole_characters.h"

namespace optserve::scheduler {
namespace {

// A list of the longest lines fits a client's frame: the numbers of a line and its fields' headers take less than this.
constexpr size_t kLineOverhead = 128;
static_assert(limits::kJobsPerListMax * (limits::kKeyBytesMax + limits::kTenantBytesMax + limits::kGroupBytesMax +
                                         limits::kModelNameBytesMax + limits::kLossReasonBytesMax + kLineOverhead) <
              limits::kClientMessageBytesMax);

bool matches(const protocol::JobFilter& filter, const Job& job) {
  return (!filter.job || *filter.job == job.id) && (!filter.state || *filter.state == job.state()) &&
         (!filter.tenant || *filter.tenant == job.spec().tenant) &&
         (filter.model.empty() || filter.model == job.spec().model) &&
         (filter.group.empty() || filter.group == job.spec().group);
}

}  // namespace

void JobLister::add(JobScan& scan, const Job& job) {
  const protocol::ListJobs& asked = scan.asked;
  const bool is_before = asked.newest_first ? asked.after != 0 && job.order >= asked.after : job.order <= asked.after;
  if (is_before || !matches(asked.filter, job)) return;
  if (scan.open.size() >= scan.asked.limit) {
    scan.more = true;
    return;
  }
  scan.sequence = std::max(scan.sequence, job.accepted_sequence);
  scan.open.push_back({job.id, job.order, job.spec().key, job.spec().tenant, job.spec().group, job.spec().model,
                       job.state(), job.attempts().count,
                       job.is_generation() ? static_cast<int64_t>(job.output().ids.size()) : job.output().bytes_done,
                       job.is_generation() ? job.spec().max_new_tokens : job.output().bytes_total, job.accepted_wall_ms,
                       job.attempts().losses.empty() ? "" : job.attempts().losses.back(), job.spec().kind});
}

const Job* JobLister::next(const JobScan& scan) const {
  if (!scan.asked.newest_first) {
    const auto next = by_order_.upper_bound(std::max(scan.position, scan.asked.after));
    return next == by_order_.end() ? nullptr : next->second;
  }
  const uint64_t before = scan.position != 0 ? scan.position : scan.asked.after;
  auto next = before == 0 ? by_order_.end() : by_order_.lower_bound(before);
  return next == by_order_.begin() ? nullptr : std::prev(next)->second;
}

std::vector<JobScan> JobLister::step(size_t budget) {
  std::vector<JobScan> done;
  while (!scans_.empty()) {
    JobScan& scan = scans_.front();
    for (const Job* job = next(scan); job != nullptr && !scan.more; job = next(scan)) {
      if (budget-- == 0) return done;
      scan.position = job->order;
      add(scan, *job);
    }
    done.push_back(std::move(scan));
    scans_.pop_front();
  }
  return done;
}

protocol::JobList merged_list(std::vector<protocol::JobSummary> open, std::vector<protocol::JobSummary> ended,
                              const protocol::ListJobs& asked) {
  protocol::JobList list;
  const auto is_earlier = [&](uint64_t one, uint64_t other) { return asked.newest_first ? one > other : one < other; };
  size_t o = 0, e = 0;
  while (list.jobs.size() < asked.limit && (o < open.size() || e < ended.size())) {
    if (o < open.size() && e < ended.size() && open[o].order == ended[e].order) {
      ++o;
      continue;
    }
    const bool takes_open = e >= ended.size() || (o < open.size() && is_earlier(open[o].order, ended[e].order));
    list.jobs.push_back(std::move(takes_open ? open[o++] : ended[e++]));
    std::string& message = list.jobs.back().message;
    message = whole_characters(message, limits::kLossReasonBytesMax);
  }
  list.more = o < open.size() || e < ended.size();
  return list;
}

}  // namespace optserve::scheduler
