#include "scheduler/queue/queue_modes.h"

#include "base/limits.h"

namespace optserve::scheduler {

using protocol::ControlScope;
using protocol::QueueMode;

Status QueueModes::set(ControlScope scope, const std::string& name, QueueMode mode) {
  if (scope == ControlScope::kQueue) {
    queue_ = mode;
    return ok_status();
  }
  Names& names = scope == ControlScope::kModel ? models_ : services_;
  if (mode == QueueMode::kOpen) {
    names.erase(name);
  } else if (names.contains(name) || names.size() < limits::kHeldNamesMax) {
    names[name] = mode;
  } else {
    return refuse(ErrorCode::kBusy, "an operator holds " + std::to_string(names.size()) + " names already");
  }
  return ok_status();
}

Status QueueModes::accepts(std::string_view model) const {
  if (queue_ == QueueMode::kDraining) {
    return refuse(ErrorCode::kUnavailable, "the queue is draining: it accepts no new jobs until it is resumed");
  }
  if (this->model(model) == QueueMode::kDraining) {
    return refuse(ErrorCode::kUnavailable,
                  "model " + std::string(model) + " is draining: it accepts no new jobs until it is resumed");
  }
  return ok_status();
}

bool QueueModes::is_held(ControlScope scope, std::string_view name) const {
  if (scope == ControlScope::kQueue) return queue_ != QueueMode::kOpen;
  return (scope == ControlScope::kModel ? models_ : services_).contains(name);
}

std::vector<std::string> QueueModes::held_models() const {
  std::vector<std::string> names;
  for (const auto& [name, mode] : models_) names.push_back(name);
  return names;
}

}  // namespace optserve::scheduler
