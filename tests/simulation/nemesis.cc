#include "simulation/nemesis.h"

#include <iterator>
#include <utility>

namespace optserve::simulation {
namespace {

constexpr int64_t kHourMs = 3'600'000;

}  // namespace

Nemesis::Nemesis(Environment& environment, Victims victims) : env_(environment), victims_(std::move(victims)) {}

void Nemesis::choose_faults() {
  const std::pair<Fault, int> kinds[] = {
      {&Nemesis::cut, 4},           {&Nemesis::partition, 4},       {&Nemesis::swizzle, 1},
      {&Nemesis::slow_peer, 2},     {&Nemesis::crash_service, 4},   {&Nemesis::crash_client, 2},
      {&Nemesis::pause_process, 3}, {&Nemesis::pause_scheduler, 1}, {&Nemesis::crash_scheduler, 2},
      {&Nemesis::hang_worker, 1},   {&Nemesis::break_worker, 2},    {&Nemesis::leave, 2},
      {&Nemesis::slow_disk, 2},     {&Nemesis::full_disk, 1},       {&Nemesis::stop_scheduler, 1},
      {&Nemesis::replay, 3},        {&Nemesis::step_clock, 2}};
  for (const auto& [fault, weight] : kinds) {
    if (env_.dice.chance(0.5)) continue;
    for (int i = 0; i < weight; ++i) faults_.push_back(fault);
  }
  if (env_.settings.hostile) faults_.insert(faults_.end(), 3, &Nemesis::mischief);
  victims_.network.remember_tokens(true);
}

void Nemesis::start() {
  if (env_.settings.fault_time == Duration::zero()) return;
  if (env_.settings.large) {
    faults_ = {&Nemesis::cut, &Nemesis::crash_service, &Nemesis::pause_process, &Nemesis::partition};
    pace_ = milliseconds(100);
  } else {
    choose_faults();
    pace_ = env_.dice.heavy_tail(milliseconds(100), milliseconds(3'000));
  }
  if (faults_.empty()) return;
  env_.queue.after<&Nemesis::act>(pace_, *this);
}

void Nemesis::act(uint64_t) {
  if (!env_.faulty) return;
  (this->*faults_[env_.dice.below(faults_.size())])();
  env_.queue.after<&Nemesis::act>(env_.dice.between(Duration::zero(), pace_ * 2), *this);
}

void Nemesis::stop() {
  env_.faulty = false;
  env_.note("heal", -1);
  victims_.network.heal();
  for (WorkerNode* worker : victims_.workers) worker->heal();
  for (Process* process : victims_.processes) {
    if (!process->is_running()) process->start();
  }
}

void Nemesis::start_again(uint64_t process) { victims_.processes[process]->start(); }

void Nemesis::crash(Process& process) {
  process.crash();
  env_.queue.after<&Nemesis::start_again>(env_.dice.heavy_tail(milliseconds(10), seconds(10)), *this, process.number);
}

void Nemesis::cut() {
  static constexpr Cut kKinds[] = {Cut::kBothKnow, Cut::kBothKnow, Cut::kProcessKnows, Cut::kSchedulerKnows};
  victims_.network.cut(any(victims_.processes).number, kKinds[env_.dice.below(4)]);
}

void Nemesis::partition() {
  const uint32_t process = any(victims_.processes).number;
  const Instant until = env_.now() + env_.dice.heavy_tail(milliseconds(50), seconds(12));
  const uint64_t kind = env_.dice.below(3);
  if (kind != 0) victims_.network.block(process, Direction::kUp, until);
  if (kind != 1) victims_.network.block(process, Direction::kDown, until);
}

// Links stop one after the other and come back in another order.
void Nemesis::swizzle() {
  for (const Process* process : victims_.processes) {
    if (!env_.dice.chance(0.6)) continue;
    const Instant until = env_.now() + env_.dice.between(milliseconds(200), seconds(8));
    victims_.network.block(process->number, Direction::kUp, until);
    victims_.network.block(process->number, Direction::kDown, until);
  }
}

void Nemesis::slow_peer() {
  const uint32_t process = any(victims_.processes).number;
  victims_.network.slow(process, env_.now() + env_.dice.heavy_tail(milliseconds(10), seconds(5)));
}

void Nemesis::crash_service() { crash(any(victims_.services)); }
void Nemesis::crash_client() { crash(any(victims_.clients)); }

void Nemesis::pause_process() {
  any(victims_.processes).pause(env_.now() + env_.dice.heavy_tail(milliseconds(50), seconds(15)));
}

void Nemesis::pause_scheduler() {
  victims_.scheduler.pause(env_.now() + env_.dice.heavy_tail(milliseconds(50), seconds(10)));
}

void Nemesis::crash_scheduler() {
  if (env_.dice.chance(0.3)) step_clock();
  if (env_.dice.chance(0.2)) victims_.store.reboot();
  victims_.scheduler.crash(env_.dice.heavy_tail(milliseconds(20), seconds(8)));
}

// A correction, a wrong clock at a start, and the end of a suspend.
void Nemesis::step_clock() {
  static constexpr int64_t kSteps[] = {1'000, kHourMs, 2 * kHourMs, 10 * 24 * kHourMs};
  const int64_t step = kSteps[env_.dice.below(std::size(kSteps))];
  env_.note("clock step", -1);
  victims_.scheduler.move_wall_clock(env_.dice.chance(0.5) ? step : -step);
}

void Nemesis::stop_scheduler() { victims_.scheduler.stop_in_order(env_.dice.heavy_tail(milliseconds(20), seconds(3))); }

void Nemesis::hang_worker() { any(victims_.workers).hang(env_.now() + env_.dice.heavy_tail(seconds(1), seconds(90))); }

void Nemesis::break_worker() {
  any(victims_.workers).break_down(env_.now() + env_.dice.heavy_tail(milliseconds(50), seconds(5)));
}

void Nemesis::leave() {
  WorkerNode& worker = any(victims_.workers);
  worker.leave();
  if (!worker.is_running()) return;
  env_.queue.after<&Nemesis::end_of_leave>(env_.dice.heavy_tail(seconds(1), seconds(20)), *this, worker.number);
}

// The drained process ends, another takes its place.
void Nemesis::end_of_leave(uint64_t process) { crash(*victims_.processes[process]); }

void Nemesis::slow_disk() { victims_.store.be_slow(env_.now() + env_.dice.heavy_tail(milliseconds(100), seconds(10))); }
void Nemesis::full_disk() { victims_.store.be_full(env_.now() + env_.dice.heavy_tail(milliseconds(100), seconds(10))); }

void Nemesis::mischief() {
  const auto some = [&] { return env_.dice.chance(0.5) ? env_.dice.unit() * 0.1 : 0.0; };
  victims_.network.mischief = {some(), some(), some(), some()};
  env_.note("mischief", -1);
  env_.queue.after<&Nemesis::end_mischief>(env_.dice.heavy_tail(milliseconds(500), seconds(10)), *this);
}

void Nemesis::end_mischief(uint64_t) { victims_.network.mischief = {}; }

void Nemesis::replay() { victims_.network.replay_old_tokens(victims_.scheduler.term()); }

}  // namespace optserve::simulation
