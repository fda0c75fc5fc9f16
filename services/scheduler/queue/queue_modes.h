// What operators have paused or set to drain: the whole queue, models, services. A pure table; the journal remembers it
// across restarts.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "protocol/client_messages.h"
#include "protocol/operator_messages.h"

namespace optserve::scheduler {

class QueueModes {
 public:
  // kOpen forgets the name. Refuses if too many names are held.
  Status set(protocol::ControlScope scope, const std::string& name, protocol::QueueMode mode);
  protocol::QueueMode queue() const { return queue_; }
  protocol::QueueMode model(std::string_view name) const { return mode_in(models_, name); }
  // Whether new jobs of this model are accepted, or why not. "" stands for conversions.
  Status accepts(std::string_view model) const;
  // Whether the waiting jobs of this model are started.
  bool starts(std::string_view model) const {
    return queue_ != protocol::QueueMode::kPaused && this->model(model) != protocol::QueueMode::kPaused;
  }
  // A service that is held, by its instance or its name, gets no new work and finishes what it has.
  bool holds_service(std::string_view instance, std::string_view name) const {
    return mode_in(services_, instance) != protocol::QueueMode::kOpen ||
           mode_in(services_, name) != protocol::QueueMode::kOpen;
  }
  bool is_held(protocol::ControlScope scope, std::string_view name) const;
  std::vector<std::string> held_models() const;

 private:
  using Names = std::map<std::string, protocol::QueueMode, std::less<>>;
  static protocol::QueueMode mode_in(const Names& names, std::string_view name) {
    const auto found = names.find(name);
    return found == names.end() ? protocol::QueueMode::kOpen : found->second;
  }

  protocol::QueueMode queue_ = protocol::QueueMode::kOpen;
  Names models_, services_;
};

}  // namespace optserve::scheduler
