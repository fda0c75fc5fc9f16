#include "simulation/trace.h"

#include <cinttypes>
#include <cstdio>

#include "simulation/dice.h"
#include "simulation/event_queue.h"

namespace optserve::simulation {

void Trace::add(Instant when, const char* what, int node, const char* note, uint64_t about) {
  uint64_t text = 0;
  for (const char* c = what; *c != 0; ++c) text = text * 131 + static_cast<uint64_t>(*c);
  for (const char* c = note; *c != 0; ++c) text = text * 137 + static_cast<uint64_t>(*c);
  hash_ = mix(hash_, mix(static_cast<uint64_t>(when.time_since_epoch().count()), text));
  hash_ = mix(hash_, mix(static_cast<uint64_t>(node), about));
  const Line line{when, what, note, node, about};
  if (lines_.size() < kLines) {
    lines_.push_back(line);
  } else {
    lines_[next_] = line;
    next_ = (next_ + 1) % kLines;
  }
}

std::string Trace::last_lines() const {
  std::string text;
  char buffer[200];
  for (size_t i = 0; i < lines_.size(); ++i) {
    const Line& line = lines_[(next_ + i) % lines_.size()];
    const double at = std::chrono::duration<double>(line.when - kStart).count();
    std::snprintf(buffer, sizeof buffer, "%12.6f  %-14s node %-4d %-16s %016" PRIx64 "\n", at, line.what, line.node,
                  line.note, line.about);
    text += buffer;
  }
  return text;
}

}  // namespace optserve::simulation
