#include "scheduler/operators/job_lister.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "scheduler/jobs/whole_characters.h"

namespace optserve::scheduler {
namespace {

// A list of the longest lines fits a client's frame: the numbers of a line and its fields' headers take less than this.
constexpr size_t kLineOverhead = 128;
static_assert(limits::kJobsPerListMax * (limits::kKeyBytesMax + limits::kTenantBytesMax + limits::kGroupBytesMax +
                                         limits::kModelNameBytesMax + limits::kLossReasonBytesMax + kLineOverhead) <
              limits::kClientMessageBytesMax);

// Places of closed jobs are removed when they are more than this part of all, and not only a few.
constexpr size_t kClosedShare = 4;
constexpr size_t kClosedMin = 1'024;

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

void JobLister::opened(Job& job) {
  check(by_order_.empty() || by_order_.back().order < job.order, "jobs are opened in order");
  by_order_.push_back({job.order, &job});
}

void JobLister::closed(const Job& job) {
  const auto place = std::ranges::lower_bound(by_order_, job.order, {}, &Place::order);
  if (place == by_order_.end() || place->order != job.order || place->job == nullptr) return;
  place->job = nullptr;
  ++closed_;
  for (; !by_order_.empty() && by_order_.front().job == nullptr; --closed_) by_order_.pop_front();
  for (; !by_order_.empty() && by_order_.back().job == nullptr; --closed_) by_order_.pop_back();
  if (closed_ * kClosedShare <= by_order_.size() || closed_ < kClosedMin) return;
  std::erase_if(by_order_, [](const Place& of) { return of.job == nullptr; });
  closed_ = 0;
}

const Job* JobLister::next(const JobScan& scan) const {
  const auto is_open = [](const Place& place) { return place.job != nullptr; };
  if (!scan.asked.newest_first) {
    const uint64_t after = std::max(scan.position, scan.asked.after);
    const auto from = std::ranges::upper_bound(by_order_, after, {}, &Place::order);
    const auto next = std::find_if(from, by_order_.end(), is_open);
    return next == by_order_.end() ? nullptr : next->job;
  }
  const uint64_t before = scan.position != 0 ? scan.position : scan.asked.after;
  const auto to = before == 0 ? by_order_.end() : std::ranges::lower_bound(by_order_, before, {}, &Place::order);
  const auto next = std::find_if(std::make_reverse_iterator(to), by_order_.rend(), is_open);
  return next == by_order_.rend() ? nullptr : next->job;
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
