#include "cli/stack/stack_supervisor.h"

#include <algorithm>
#include <csignal>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/log.h"

namespace optserve::cli {

StackSupervisor::StackSupervisor(std::vector<PlannedProcess> processes, ProcessHost& host, const SupervisorTimes& times,
                                 Instant now)
    : host_(host), times_(times), ready_deadline_(now + times.ready) {
  check(!processes.empty(), "a stack has processes");
  for (PlannedProcess& process : processes) {
    members_.push_back({});
    members_.back().plan = std::move(process);
  }
}

bool StackSupervisor::take_changed() { return std::exchange(changed_, false); }

bool StackSupervisor::all_gone() const {
  return std::all_of(members_.begin(), members_.end(), [](const Member& member) { return member.pid < 0; });
}

void StackSupervisor::start(Member& member, Instant now) {
  member.ready = false;
  member.started_at = now;
  changed_ = true;
  try {
    member.pid = host_.start(member.plan);
  } catch (const Error& error) {
    on_exit(member, std::string("could not be started: ") + error.what(), now);
    return;
  }
  log_info("process_started", {{"name", member.plan.name}, {"pid", member.pid}, {"restarts", member.restarts}});
}

void StackSupervisor::on_tick(Instant now) {
  reap(now);
  if (state_ == State::kStarting) tick_starting(now);
  if (state_ == State::kReady) tick_ready(now);
  if (state_ == State::kStopping) tick_stopping(now);
}

void StackSupervisor::reap(Instant now) {
  for (Member& member : members_) {
    if (member.pid < 0) continue;
    if (const std::optional<std::string> how = host_.poll_exit(member.pid)) on_exit(member, *how, now);
  }
}

void StackSupervisor::on_exit(Member& member, const std::string& how, Instant now) {
  member.pid = -1;
  member.ready = false;
  member.last_exit = how;
  changed_ = true;
  if (state_ == State::kStopping) {
    log_info("process_stopped", {{"name", member.plan.name}, {"how", how}});
    return;
  }
  if (state_ == State::kStarting) {
    fail(member.plan.name, member.plan.name + " " + how + " before it was ready", now);
    return;
  }
  const bool lived_long = now - member.started_at >= times_.forgive;
  member.back_off = lived_long || member.back_off == Duration::zero()
                        ? times_.back_off_first
                        : std::min(member.back_off * 2, times_.back_off_max);
  member.next_start = now + member.back_off;
  const auto wait_ms = std::chrono::duration_cast<milliseconds>(member.back_off).count();
  log_warn("process_ended", {{"name", member.plan.name}, {"how", how}, {"restart_in_ms", wait_ms}});
}

void StackSupervisor::fail(const std::string& process, const std::string& why, Instant now) {
  failure_ = why;
  failed_process_ = process;
  log_error("start_failed", {{"why", why}});
  begin_stop(now);
}

void StackSupervisor::tick_starting(Instant now) {
  if (members_.front().started_at == Instant{}) start(members_.front(), now);
  if (state_ != State::kStarting || now < next_probe_) return;
  next_probe_ = now + times_.probe;
  for (Member& member : members_) {
    if (member.started_at == Instant{}) {
      if (!members_.front().ready) break;
      start(member, now);
      if (state_ != State::kStarting) return;
    }
    if (!member.ready) member.ready = host_.is_ready(member.plan);
  }
  const auto unready = std::find_if(members_.begin(), members_.end(), [](const Member& m) { return !m.ready; });
  if (unready == members_.end()) {
    state_ = State::kReady;
    changed_ = true;
    log_info("stack_ready");
  } else if (now >= ready_deadline_) {
    const auto limit = std::chrono::duration_cast<seconds>(times_.ready).count();
    fail(unready->plan.name, unready->plan.name + " was not ready within " + std::to_string(limit) + " s", now);
  }
}

void StackSupervisor::tick_ready(Instant now) {
  for (Member& member : members_) {
    if (member.pid >= 0 || now < member.next_start) continue;
    ++member.restarts;
    start(member, now);
  }
}

void StackSupervisor::begin_stop(Instant now) {
  if (state_ == State::kStopping || state_ == State::kStopped) return;
  state_ = State::kStopping;
  changed_ = true;
  const Duration drain = failure_.empty() ? times_.drain + times_.exit_grace : Duration::zero();
  first_deadline_ = now + drain;
  if (!first_gone()) host_.signal(members_.front().pid, failure_.empty() ? SIGTERM : SIGKILL);
}

void StackSupervisor::end_stop() {
  if (state_ != State::kStopping || std::exchange(is_cut_short_, true)) return;
  log_warn("drain_skipped", {{"reason", "second signal"}});
  if (!first_gone()) host_.signal(members_.front().pid, SIGKILL);
  signal_rest(SIGKILL);
}

void StackSupervisor::signal_rest(int number) {
  for (size_t i = 1; i < members_.size(); ++i) {
    if (members_[i].pid >= 0) host_.signal(members_[i].pid, number);
  }
}

void StackSupervisor::tick_stopping(Instant now) {
  if (!first_gone() && now >= first_deadline_) {
    log_warn("drain_deadline", {{"name", members_.front().plan.name}});
    host_.signal(members_.front().pid, SIGKILL);
  }
  if (!rest_told_ && (first_gone() || now >= first_deadline_)) {
    rest_told_ = true;
    rest_deadline_ = now + (failure_.empty() ? times_.drain + times_.exit_grace : Duration::zero());
    signal_rest(SIGTERM);
  }
  if (rest_told_ && now >= rest_deadline_) signal_rest(SIGKILL);
  if (!all_gone()) return;
  state_ = State::kStopped;
  changed_ = true;
}

}  // namespace optserve::cli
