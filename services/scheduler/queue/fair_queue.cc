#include "scheduler/queue/fair_queue.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace optserve::scheduler {

FairQueue::Flow& FairQueue::flow_of(Class& of, const std::string& tenant) {
  const auto [found, is_new] = of.flows.try_emplace(tenant);
  Flow& flow = found->second;
  if (is_new) {
    flow.tenant = tenant;
    flow.serial = ++of.next_serial;
    flow.weight = weights_.of(tenant);
  }
  return flow;
}

void FairQueue::count_in(Class& of, Flow& flow, Job& job) {
  if (flow.count++ == 0) {
    of.idle.erase(turn_of(flow));
    of.weight += flow.weight;
  }
  job.slot.counted_cost_ = job.slot.cost;
  flow.tokens += job.slot.cost, of.tokens += job.slot.cost, tokens_ += job.slot.cost;
  ++of.count, ++jobs_;
}

void FairQueue::count_out(Class& of, Flow& flow, Job& job) {
  flow.tokens -= job.slot.counted_cost_, of.tokens -= job.slot.counted_cost_, tokens_ -= job.slot.counted_cost_;
  --of.count, --jobs_;
  if (job.slot.state_ == QueueSlot::State::kExpected) expected_.erase(job.order);
  job.slot.state_ = QueueSlot::State::kOut;
  if (--flow.count > 0) return;
  of.weight = of.count == 0 ? 0 : of.weight - flow.weight;
  of.idle.insert(turn_of(flow));
  forget_idle(of);
}

void FairQueue::forget_idle(Class& of) {
  while (!of.idle.empty() && (of.idle.begin()->tag <= of.time || of.idle.size() > kIdleFlowsMax)) {
    Flow& flow = *of.idle.begin()->flow;
    of.idle.erase(of.idle.begin());
    of.flows.erase(std::string(flow.tenant));
  }
}

void FairQueue::expect(Job& job) {
  check(job.slot.state_ == QueueSlot::State::kOut, "a job is expected once");
  Class& of = class_of(job);
  count_in(of, flow_of(of, job.spec().tenant), job);
  job.slot.state_ = QueueSlot::State::kExpected;
  expected_.emplace(job.order, &job);
}

void FairQueue::push(Job& job) {
  check(job.slot.state_ != QueueSlot::State::kWaiting, "a job waits once");
  Class& of = class_of(job);
  Flow& flow = flow_of(of, job.spec().tenant);
  if (job.slot.state_ == QueueSlot::State::kExpected) {
    const int64_t change = job.slot.cost - job.slot.counted_cost_;
    flow.tokens += change, of.tokens += change, tokens_ += change;
    job.slot.counted_cost_ = job.slot.cost;
    expected_.erase(job.order);
  } else {
    count_in(of, flow, job);
  }
  job.slot.state_ = QueueSlot::State::kWaiting;
  if (flow.jobs.empty()) {
    flow.tag = std::max(flow.tag, of.time);
    if (!flow.is_held) of.active.insert(turn_of(flow));
  }
  flow.jobs.insert({job.order, &job});
  note_first(flow);
  ++waiting_;
}

void FairQueue::remove(Class& of, Flow& flow, Job& job) {
  flow.jobs.erase(job.order);
  note_first(flow);
  --waiting_;
  if (flow.jobs.empty()) of.active.erase(turn_of(flow));
  count_out(of, flow, job);
}

void FairQueue::leave(Job& job) {
  if (job.slot.state_ == QueueSlot::State::kOut) return;
  Class& of = class_of(job);
  Flow& flow = flow_of(of, job.spec().tenant);
  if (job.slot.state_ == QueueSlot::State::kWaiting) {
    remove(of, flow, job);
  } else {
    count_out(of, flow, job);
  }
}

void FairQueue::serve(Class& of, Flow& flow, Job& job) {
  of.time = std::max(of.time, flow.tag);
  of.active.erase(turn_of(flow));
  flow.tag += static_cast<double>(job.slot.counted_cost_) / flow.weight;
  of.active.insert(turn_of(flow));
  remove(of, flow, job);
  forget_idle(of);
}

void FairQueue::hold(Class& of, Flow& flow) {
  of.active.erase(turn_of(flow));
  flow.is_held = true;
}

// A tenant gets no compensation for the time in which it was held.
void FairQueue::release(const std::string& tenant) {
  for (Class& of : classes_) {
    const auto found = of.flows.find(tenant);
    if (found == of.flows.end() || !std::exchange(found->second.is_held, false)) continue;
    Flow& flow = found->second;
    if (flow.jobs.empty()) continue;
    flow.tag = std::max(flow.tag, of.time);
    of.active.insert(turn_of(flow));
  }
}

const Job* FairQueue::oldest() const {
  if (expected_.empty() || firsts_.empty()) {
    return !expected_.empty() ? expected_.begin()->second : !firsts_.empty() ? firsts_.begin()->second : nullptr;
  }
  return std::min(*expected_.begin(), *firsts_.begin()).second;
}

void FairQueue::note_first(Flow& flow) {
  const uint64_t first = flow.jobs.empty() ? 0 : flow.jobs.begin()->first;
  if (first == flow.first) return;
  firsts_.erase(flow.first);
  if (first != 0) firsts_.emplace(first, flow.jobs.begin()->second);
  flow.first = first;
}

int64_t FairQueue::tokens_of(const std::string& tenant) const {
  int64_t tokens = 0;
  for (const Class& of : classes_) {
    const auto found = of.flows.find(tenant);
    if (found != of.flows.end()) tokens += found->second.tokens;
  }
  return tokens;
}

size_t FairQueue::flows() const {
  size_t count = 0;
  for (const Class& of : classes_) count += of.flows.size();
  return count;
}

// `rank`: the tenant's own jobs before this one, in this priority.
FairQueue::Ahead FairQueue::ahead(size_t priority, const Flow* flow, size_t rank, double weight) const {
  Ahead result;
  for (size_t p = priority + 1; p < classes_.size(); ++p) {
    result.jobs += classes_[p].count;
    result.tokens += classes_[p].tokens;
  }
  const Class& of = classes_[priority];
  const size_t own = flow != nullptr ? flow->count : 0;
  const int64_t own_tokens = flow != nullptr ? flow->tokens : 0;
  const double others_weight = std::max(0.0, of.weight - (own > 0 ? weight : 0));
  const double own_ahead =
      own == 0 ? 0 : static_cast<double>(own_tokens) * static_cast<double>(rank) / static_cast<double>(own);
  const double per_own = others_weight / weight;
  const auto others_jobs = static_cast<double>(of.count - own);
  const auto others_tokens = static_cast<double>(of.tokens - own_tokens);
  result.jobs += rank + static_cast<size_t>(std::llround(std::min(others_jobs, static_cast<double>(rank) * per_own)));
  result.tokens += std::llround(own_ahead + std::min(others_tokens, own_ahead * per_own));
  return result;
}

FairQueue::Ahead FairQueue::ahead_of(const Job& job, Instant now) const {
  const auto priority = static_cast<size_t>(job.spec().priority);
  const auto found = classes_[priority].flows.find(job.spec().tenant);
  if (job.slot.state_ == QueueSlot::State::kOut || found == classes_[priority].flows.end()) return {};
  const Flow& flow = found->second;
  size_t rank = flow.count - 1;  // expected: behind all jobs that are there
  if (job.slot.state_ == QueueSlot::State::kWaiting) {
    rank = flow.jobs.order_of_key(job.order);
    if (flow.is_late(now)) rank = flow.jobs.size() - 1 - rank;
  }
  return ahead(priority, &flow, rank, flow.weight);
}

FairQueue::Ahead FairQueue::ahead_of_new(const std::string& tenant, int32_t priority) const {
  const auto p = static_cast<size_t>(priority);
  const auto found = classes_[p].flows.find(tenant);
  const Flow* flow = found == classes_[p].flows.end() ? nullptr : &found->second;
  return ahead(p, flow, flow != nullptr ? flow->count : 0, weights_.of(tenant));
}

}  // namespace optserve::scheduler
