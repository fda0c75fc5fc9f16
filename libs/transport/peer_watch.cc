#include "transport/peer_watch.h"

#include "base/log.h"

namespace optserve::transport {
namespace {

constexpr seconds kSilence{3};  // heartbeats are answered every second
constexpr seconds kBetweenLooks{5};
constexpr seconds kBetweenLogLines{60};  // during a long silence
constexpr seconds kConnectLimit{2};

}  // namespace

void PeerWatch::heard(Instant now) {
  last_heard_ = now;
  look_.reset();
  not_let_in_.clear();
  if (!std::exchange(is_reported_, false)) return;
  next_log_ = {};
  log_info("scheduler_reachable", {{"endpoint", port_.endpoint()}});
  if (health_ != nullptr) health_->set_problem("");
}

void PeerWatch::on_tick(Instant now) {
  if (!last_heard_) last_heard_ = now;
  if (now - *last_heard_ < kSilence) return;
  if (look_) {
    const auto found = look_->result(Duration::zero());
    if (!found) return;
    look_.reset();
    report(*found, now);
  } else if (now >= next_look_) {
    next_look_ = now + kBetweenLooks;
    look_.emplace(port_.endpoint(), kConnectLimit);
  }
}

void PeerWatch::report(const Reachability& found, Instant now) {
  const auto silent_s = std::chrono::duration_cast<seconds>(now - *last_heard_).count();
  const std::string why =
      !found.is_reachable ? found.why
      : !not_let_in_.empty()
          ? not_let_in_
          : "it accepts connections, but does not answer; is this the port for services, and does it "
            "want keys?";
  is_reported_ = true;
  if (health_ != nullptr) health_->set_problem("no answer from the scheduler at " + port_.endpoint() + ": " + why);
  if (now < next_log_) return;
  next_log_ = now + kBetweenLogLines;
  log_warn("scheduler_unreachable", {{"endpoint", port_.endpoint()}, {"silent_s", silent_s}, {"why", why}});
}

}  // namespace optserve::transport
