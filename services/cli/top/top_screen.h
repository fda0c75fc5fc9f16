// What `optserve top` shows: one screen of the state of all schedulers.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "client/client_types.h"

namespace optserve::cli {

// What the schedulers have answered at one moment.
struct SystemLook {
  client::Answers<protocol::SystemStatus> answers;
  Instant at;
  int64_t wall_ms = 0;
};

struct ScreenSize {
  size_t columns = 0;  // 0: as many as there are
  size_t rows = 0;
};

// Lines without ends, none longer than the screen is wide and not more than fit. Rates are those since `before`;
// without it they are not shown.
std::vector<std::string> top_screen(const SystemLook& now, const std::optional<SystemLook>& before,
                                    const ScreenSize& size);

}  // namespace optserve::cli
