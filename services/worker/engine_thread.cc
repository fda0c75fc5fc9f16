#include "worker/engine_thread.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/error.h"

namespace optserve::worker {

EngineThread::EngineThread(const batching::PlannerOptions& options, GroupSteps steps, batching::DraftSource* drafts)
    : planner_(options), group_(std::move(steps)), drafts_(drafts) {
  event_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_fd_ < 0) throw errno_error("eventfd");
  thread_ = std::thread([this] { run(); });
}

EngineThread::~EngineThread() {
  stop();
  close(event_fd_);
}

void EngineThread::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  commands_changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void EngineThread::add(batching::SequenceRequest request) {
  {
    const std::lock_guard lock(mutex_);
    added_.push_back(std::move(request));
  }
  commands_changed_.notify_one();
}

void EngineThread::cancel(batching::SequenceId id) {
  {
    const std::lock_guard lock(mutex_);
    cancelled_.push_back(id);
  }
  commands_changed_.notify_one();
}

std::vector<batching::SequenceEvent> EngineThread::take_events() {
  uint64_t ignored = 0;
  [[maybe_unused]] const ssize_t count = read(event_fd_, &ignored, sizeof ignored);
  const std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(failure_);
  return std::exchange(events_, {});
}

batching::PlannerStats EngineThread::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void EngineThread::run() {
  try {
    while (wait_for_commands()) {
      std::vector<batching::SequenceEvent> events;
      take_commands(events);
      while (const auto plan = batching::plan_step(planner_, drafts_)) group_.start(*plan);
      if (planner_.in_flight() > 0) finish_step(events);
      publish(std::move(events));
    }
    std::vector<batching::SequenceEvent> last;
    while (planner_.in_flight() > 0) finish_step(last);
    publish(std::move(last));
  } catch (...) {
    {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
    }
    publish({});
  }
}

void EngineThread::finish_step(std::vector<batching::SequenceEvent>& events) {
  std::vector<batching::SequenceEvent> of_step = batching::apply_step(planner_, group_.finish(), drafts_);
  std::ranges::move(of_step, std::back_inserter(events));
  steps_.fetch_add(1);
}

// False when the thread is to end.
bool EngineThread::wait_for_commands() {
  std::unique_lock lock(mutex_);
  const auto something = [this] { return stopping_ || !added_.empty() || !cancelled_.empty(); };
  if (!planner_.has_work() && planner_.in_flight() == 0) commands_changed_.wait(lock, something);
  return !stopping_;
}

void EngineThread::take_commands(std::vector<batching::SequenceEvent>& events) {
  std::vector<batching::SequenceRequest> added;
  std::vector<batching::SequenceId> cancelled;
  {
    const std::lock_guard lock(mutex_);
    added.swap(added_);
    cancelled.swap(cancelled_);
  }
  for (batching::SequenceRequest& request : added) batching::add_sequence(planner_, std::move(request), events);
  // This comes after the additions, since a generation may be added and cancelled between two steps.
  for (const batching::SequenceId id : cancelled) planner_.cancel(id);
}

void EngineThread::publish(std::vector<batching::SequenceEvent> events) {
  bool announce = false;
  {
    const std::lock_guard lock(mutex_);
    stats_ = planner_.stats();
    announce = failure_ != nullptr || !events.empty();
    for (batching::SequenceEvent& event : events) events_.push_back(std::move(event));
  }
  if (!announce) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t count = write(event_fd_, &one, sizeof one);
}

}  // namespace optserve::worker
