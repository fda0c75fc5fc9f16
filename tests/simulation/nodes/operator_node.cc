#include "simulation/nodes/operator_node.h"

#include <algorithm>

namespace optserve::simulation {
namespace {

using protocol::ControlAction;
using protocol::ControlScope;

// What it asked while there were faults has arrived by then, or never does.
constexpr seconds kSettlesWithin = kCallTimeout + seconds(5);

}  // namespace

OperatorNode::OperatorNode(Environment& environment, Network& network, Ledger& ledger, std::vector<WorkerNode*> workers)
    : SessionProcess(environment, network),
      ledger_(ledger),
      workers_(std::move(workers)),
      pace_(environment.dice.heavy_tail(milliseconds(200), seconds(5))) {
  kind_ = "operator";
}

void OperatorNode::on_crash() {
  SessionProcess::on_crash();
  resuming_ = 0;
}

void OperatorNode::on_turn() {
  if (!env_.faulty) {
    healed_at_ = std::min(healed_at_, env_.now());
    if (!done_ && resuming_ == 0) resume_all();
    return;
  }
  for (Held& held : held_) {
    if (env_.now() < held.until) continue;
    held.until = env_.now() + kCallTimeout;  // then again
    resume(held.target);
  }
  if (env_.now() < next_act_) return;
  next_act_ = env_.now() + env_.dice.between(Duration::zero(), pace_ * 2);
  act();
}

void OperatorNode::act() {
  const uint64_t what = env_.dice.below(10);
  if (what < 3) {
    hold();
  } else if (what < 6) {
    put_back();
  } else if (what < 9) {
    ask_group();
  } else {
    purge();
  }
}

template <class F>
void OperatorNode::call(protocol::Message request, F&& answered) {
  session_->call(std::move(request), local_now() + kCallTimeout, {local_now(), out()},
                 [answered](const Result<protocol::Message>& answer, const client::Turn&) { answered(answer); });
}

void OperatorNode::hold() {
  Target target;
  const auto scope = env_.dice.below(3);
  if (scope == 0) {
    target = {ControlScope::kQueue, ""};
  } else if (scope == 1) {
    target = {ControlScope::kModel, env_.model.info().name};
  } else {
    target = {ControlScope::kService, workers_[env_.dice.below(workers_.size())]->name()};
  }
  const ControlAction action = env_.dice.chance(0.5) ? ControlAction::kPause : ControlAction::kDrain;
  held_.push_back({target, env_.now() + env_.dice.heavy_tail(milliseconds(100), seconds(8))});
  env_.note("hold", static_cast<int>(number), kind_, static_cast<uint64_t>(target.first));
  call(protocol::Control{0, action, target.first, target.second}, [](const auto&) {});
}

// Whoever else holds the same resumes with it.
void OperatorNode::resume(const Target& target) {
  call(protocol::Control{0, ControlAction::kResume, target.first, target.second}, [this, target](const auto& answer) {
    if (answer.ok()) std::erase_if(held_, [&](const Held& held) { return held.target == target; });
  });
}

void OperatorNode::resume_all() {
  std::vector<Target> targets = {{ControlScope::kQueue, ""}, {ControlScope::kModel, env_.model.info().name}};
  for (const WorkerNode* worker : workers_) targets.push_back({ControlScope::kService, worker->name()});
  resuming_ = targets.size();
  not_resumed_ = 0;
  const bool is_last = env_.now() >= healed_at_ + kSettlesWithin;
  for (const auto& [scope, name] : targets) {
    call(protocol::Control{0, ControlAction::kResume, scope, name}, [this, is_last](const auto& answer) {
      if (!answer.ok() && answer.refusal().code != ErrorCode::kNotFound) ++not_resumed_;
      if (--resuming_ == 0) done_ = is_last && not_resumed_ == 0;
    });
  }
}

void OperatorNode::put_back() {
  const auto dead = ledger_.dead_entries();
  if (dead.empty()) return;
  const Ledger::Entry& entry = *dead[env_.dice.below(dead.size())];
  const bool is_certain = entry.shown.has_value();  // else a restart may find that it has not died
  call(protocol::Requeue{0, entry.id}, [this, id = entry.id, order = entry.order, is_certain](const auto& answer) {
    if (!answer.ok()) return;
    const auto* status = std::get_if<protocol::JobStatus>(&answer.value());
    const Ledger::Entry* known = ledger_.find(id);
    if (status == nullptr || known == nullptr) return;
    if (is_certain && !protocol::is_terminal(status->result.state)) ledger_.on_put_back(id, order);
    session_->follow(id, 0, watching(ledger_, *known), {local_now(), out()});
  });
}

void OperatorNode::purge() {
  protocol::JobFilter filter;
  if (env_.dice.chance(0.5)) filter.tenant = kTenants[env_.dice.below(std::size(kTenants))];
  if (env_.dice.chance(0.3)) filter.group = kGroups[env_.dice.below(std::size(kGroups))];
  filter.state = env_.dice.chance(0.7) ? protocol::JobState::kSucceeded : protocol::JobState::kDead;
  call(protocol::Purge{0, filter}, [](const auto&) {});
}

void OperatorNode::ask_group() {
  const bool cancel = env_.dice.chance(0.1);
  call(protocol::GetGroup{0, kTenants[env_.dice.below(std::size(kTenants))],
                          kGroups[env_.dice.below(std::size(kGroups))], cancel},
       [](const auto&) {});
}

}  // namespace optserve::simulation
