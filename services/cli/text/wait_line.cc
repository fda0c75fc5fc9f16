#include "cli/text/wait_line.h"

#include <utility>

#include "cli/text/text_table.h"

namespace optserve::cli {
namespace {

constexpr const char* kEraseLine = "\r\x1b[K";

}  // namespace

std::string WaitLine::show(const protocol::JobEvent& event) {
  if (event.state != protocol::JobState::kQueued || event.text_offset + event.text.size() > 0) return erase();
  is_shown_ = true;
  std::string text = kEraseLine;
  text += event.position == 0   ? "queued: next to start"
          : event.position == 1 ? "queued: 1 job before it"
                                : "queued: " + std::to_string(event.position) + " jobs before it";
  if (event.eta_ms >= 0) text += ", starts in about " + duration_text(event.eta_ms);
  return text;
}

std::string WaitLine::erase() { return std::exchange(is_shown_, false) ? kEraseLine : ""; }

}  // namespace optserve::cli
