#include "simulation/nodes/process.h"

#include <utility>

namespace optserve::simulation {

Process::Process(Environment& environment, Network& network, transport::PortId port)
    : env_(environment), network_(network), port_(port) {
  clock_rate_ = 1 + (env_.dice.unit() - 0.5) / 500;
  clock_offset_ = env_.dice.between(seconds(-500'000), seconds(500'000));
}

Instant Process::local_now() const {
  const double elapsed = static_cast<double>(env_.now().time_since_epoch().count()) * clock_rate_;
  return Instant(Duration(static_cast<int64_t>(elapsed))) + clock_offset_;
}

void Process::start() {
  if (service_ != nullptr) return;
  ++incarnation_;
  env_.note("start", static_cast<int>(number), kind_);
  service_ = make_service();
  network_.connect(*this);
  env_.queue.after<&Process::tick>(env_.dice.between(Duration::zero(), milliseconds(20)), *this, incarnation_);
}

void Process::crash() {
  if (service_ == nullptr) return;
  env_.note("crash", static_cast<int>(number), kind_);
  on_crash();
  service_.reset();
  out_ = {};
  inbox_.clear();
  paused_until_ = {};
  network_.disconnect(*this);
}

void Process::pause(Instant until) {
  if (service_ == nullptr || is_paused()) return;
  env_.note("pause", static_cast<int>(number), kind_);
  paused_until_ = until;
  if (until - env_.now() > kConnectionLife) network_.process_silent_for_long(number);
  env_.queue.at<&Process::resume>(until, *this, incarnation_);
}

void Process::resume(uint64_t incarnation) {
  if (incarnation != incarnation_ || service_ == nullptr || is_paused()) return;
  env_.note("resume", static_cast<int>(number), kind_);
  for (protocol::Message& message : std::exchange(inbox_, {})) receive(std::move(message));
}

void Process::receive(protocol::Message message) {
  if (service_ == nullptr) return;
  if (is_paused()) {
    inbox_.push_back(std::move(message));
    return;
  }
  on_delivered(message);
  service_->on_message({0, {}}, std::move(message), local_now(), out_);
  flush();
}

void Process::connected() {
  service_->on_connected(0, local_now(), out_);
  flush();
}

void Process::tick(uint64_t incarnation) {
  if (incarnation != incarnation_ || service_ == nullptr) return;
  if (is_paused()) {
    env_.queue.at<&Process::tick>(paused_until_, *this, incarnation);
    return;
  }
  on_turn();
  service_->on_tick(local_now(), out_);
  flush();
  env_.queue.after<&Process::tick>(service_->tick_interval(), *this, incarnation);
}

void Process::flush() {
  for (int round = 0; round < kFlushRounds; ++round) {
    service_->on_flush(local_now(), out_);
    if (out_.empty()) break;
    const bool reconnects = !out_.take_reconnects().empty();
    for (transport::Outgoing& item : out_.take()) {
      if (network_.up(*this, item.message)) continue;
      service_->on_undeliverable(item.to, std::move(item.message), false, local_now(), out_);
    }
    if (!reconnects) continue;
    network_.disconnect(*this);
    network_.connect(*this);
  }
}

}  // namespace optserve::simulation
