#include "batches/driver.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

namespace optserve::batches {

struct Driver::Inbox {
  // An event for a run, which is passed to it on the driver's thread.
  struct Event {
    uint64_t run;
    std::function<void(BatchRun&, Instant)> tell;
  };

  void put(Event event) {
    const std::lock_guard lock(mutex);
    events.push_back(std::move(event));
    changed.notify_one();
  }
  std::deque<Event> take(milliseconds wait) {
    std::unique_lock lock(mutex);
    changed.wait_for(lock, wait, [this] { return !events.empty() || is_woken; });
    is_woken = false;
    return std::exchange(events, {});
  }
  void wake() {
    const std::lock_guard lock(mutex);
    is_woken = true;
    changed.notify_one();
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Event> events;
  bool is_woken = false;
};

Driver::Driver(client::AsyncClient& client, const Clock& clock)
    : client_(client), clock_(clock), inbox_(std::make_shared<Inbox>()) {}

Driver::~Driver() = default;

uint64_t Driver::add(BatchRun& run) {
  runs_.emplace(++last_number_, &run);
  return last_number_;
}

void Driver::remove(uint64_t number) { runs_.erase(number); }

void Driver::cancel(const std::vector<JobId>& jobs) {
  for (const JobId& job : jobs) client_.cancel(job, [](const auto&) {});
}

void Driver::submit(uint64_t number, BatchRun::Work work) {
  const uint64_t ticket = work.ticket;
  client::JobStream stream;
  stream.on_finished = [inbox = inbox_, number, ticket](const protocol::JobResult& result) {
    inbox->put({number, [ticket, result](BatchRun& run, Instant now) { run.on_finished(ticket, result, now); }});
  };
  stream.on_lost = [inbox = inbox_, number, ticket](const JobId&, const Refusal& why) {
    inbox->put({number, [ticket, why](BatchRun& run, Instant now) { run.on_lost(ticket, why, now); }});
  };
  client_.submit(std::move(work.jobs), std::move(stream),
                 [inbox = inbox_, number, ticket](const client::Submission& submission) {
                   inbox->put({number, [ticket, outcomes = submission.outcomes](BatchRun& run, Instant now) {
                                 run.on_submitted(ticket, outcomes, now);
                               }});
                 });
}

void Driver::step(milliseconds wait) {
  for (const auto& [number, run] : runs_) {
    while (std::optional<BatchRun::Work> work = run->next(clock_.now())) submit(number, std::move(*work));
    if (const auto wakes = run->wakes_at()) {
      wait = std::clamp(std::chrono::ceil<milliseconds>(*wakes - clock_.now()), milliseconds(0), wait);
    }
  }
  for (Inbox::Event& event : inbox_->take(wait)) {
    const auto run = runs_.find(event.run);
    if (run != runs_.end()) event.tell(*run->second, clock_.now());
  }
}

void Driver::wake() { inbox_->wake(); }

}  // namespace optserve::batches
