#include "gateway/service/scheduler_watch.h"

#include <utility>

namespace optserve::gateway {
namespace {

constexpr seconds kSilence{3};  // each status is asked for every second
constexpr seconds kBetweenReports{60};

}  // namespace

std::vector<SchedulerWatch::News> SchedulerWatch::update(const client::Answers<protocol::SystemStatus>& answers,
                                                         Instant now) {
  std::vector<News> news;
  for (const auto& [endpoint, answer] : answers) {
    State& state = states_.try_emplace(endpoint, State{.last_heard = now}).first->second;
    if (answer.ok()) {
      if (std::exchange(state.is_reported, false)) news.push_back({endpoint, true, now - state.last_heard, ""});
      state.last_heard = now;
      continue;
    }
    const bool is_due = !state.is_reported || now >= state.next_report;
    if (now - state.last_heard < kSilence || !is_due) continue;
    state.is_reported = true;
    state.next_report = now + kBetweenReports;
    news.push_back({endpoint, false, now - state.last_heard, answer.refusal().message});
  }
  return news;
}

}  // namespace optserve::gateway
