// The one line that tells a person at a terminal why nothing is printed yet. It is erased when the output begins.
#pragma once

#include <string>

#include "protocol/client_messages.h"

namespace optserve::cli {

class WaitLine {
 public:
  // What to write to the terminal for this event: the line in place of the last one, or its removal.
  std::string show(const protocol::JobEvent& event);
  // What removes the line, if it is there.
  std::string erase();

 private:
  bool is_shown_ = false;
};

}  // namespace optserve::cli
