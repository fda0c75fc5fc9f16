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
         (!filter.tenant || *filter.tenant == job.spec.tenant) &&
         (filter.model.empty() || filter.model == job.spec.model) &&
         (filter.group.empty() || filter.group == job.spec.group);
}

}  // namespace

void JobLister::add(JobScan& scan, const Job& job) {
  if (job.order <= scan.asked.after || !matches(scan.asked.filter, job)) return;
  if (scan.open.size() >= scan.asked.limit) {
    scan.more = true;
    return;
  }
  scan.sequence = std::max(scan.sequence, job.accepted_sequence);
  scan.open.push_back({job.id, job.order, job.spec.key, job.spec.tenant, job.spec.group, job.spec.model, job.state(),
                       job.attempts.count,
                       job.is_generation() ? static_cast<int64_t>(job.output.ids.size()) : job.output.bytes_done,
                       job.is_generation() ? job.spec.max_new_tokens : job.output.bytes_total, job.accepted_wall_ms,
                       job.attempts.losses.empty() ? "" : job.attempts.losses.back()});
}

std::vector<JobScan> JobLister::step(size_t budget) {
  std::vector<JobScan> done;
  while (!scans_.empty()) {
    JobScan& scan = scans_.front();
    auto next = by_order_.upper_bound(std::max(scan.position, scan.asked.after));
    while (next != by_order_.end() && !scan.more) {
      if (budget-- == 0) return done;
      scan.position = next->first;
      add(scan, *next->second);
      ++next;
    }
    done.push_back(std::move(scan));
    scans_.pop_front();
  }
  return done;
}

protocol::JobList merged_list(std::vector<protocol::JobSummary> open, std::vector<protocol::JobSummary> ended,
                              uint32_t limit) {
  protocol::JobList list;
  size_t o = 0, e = 0;
  while (list.jobs.size() < limit && (o < open.size() || e < ended.size())) {
    if (o < open.size() && e < ended.size() && open[o].order == ended[e].order) {
      ++o;
      continue;
    }
    const bool takes_open = e >= ended.size() || (o < open.size() && open[o].order < ended[e].order);
    list.jobs.push_back(std::move(takes_open ? open[o++] : ended[e++]));
    std::string& message = list.jobs.back().message;
    message = whole_characters(message, limits::kLossReasonBytesMax);
  }
  list.more = o < open.size() || e < ended.size();
  return list;
}

}  // namespace optserve::scheduler
