// Which schedulers of a gateway are silent, and when that is worth a line in the log.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "client/async_client.h"

namespace optserve::gateway {

class SchedulerWatch {
 public:
  struct News {
    std::string endpoint;
    bool is_reachable = false;
    Duration silence{};  // since the last answer, or since the first question
    std::string why;     // it does not answer
    bool operator==(const News&) const = default;
  };

  // With every status. A scheduler is reported when it has been silent for some seconds, then once a minute, and when
  // it answers again.
  std::vector<News> update(const client::Answers<protocol::SystemStatus>& answers, Instant now);

 private:
  struct State {
    Instant last_heard{};  // or asked first
    Instant next_report{};
    bool is_reported = false;
  };
  std::map<std::string, State> states_;
};

}  // namespace optserve::gateway
