// One line on a terminal that is rewritten in place, and the progress of long work as such a line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/time_left.h"

namespace optserve {

// Returns what to write to the terminal; writes nothing itself.
class RewrittenLine {
 public:
  std::string show(std::string_view text);  // replaces the line that is shown, if there is one
  std::string erase();                      // "" unless a line is shown
  std::string keep();                       // ends the shown line; "" unless one is shown

 private:
  bool is_shown_ = false;
};

// "7 B", "310 kB", "1.5 MB", "12.4 GB": decimal units, three digits.
std::string bytes_text(uint64_t bytes);

struct ByteProgress {
  uint64_t done = 0;
  uint64_t total = 0;            // bytes; 0 if nothing has to be done
  double bytes_per_second = 0;   // 0: not known yet
  std::string_view time_left{};  // of TimeLeft; "": not known yet
  std::string_view item{};       // what is worked on now; may be ""
};
// "42% of 12.4 GB, 310 MB/s, about 30 s left, decoder.layers.3.fc1.weight"
std::string progress_text(const ByteProgress& progress);

// The progress of work that is measured in bytes, for a terminal or a log. What was done before the first call of
// show() does not count for speed and time left.
class ProgressLine {
 public:
  // On a terminal the line is rewritten up to five times a second; otherwise a line is added every five seconds.
  explicit ProgressLine(bool is_terminal) : is_terminal_(is_terminal) {}

  // What to write now; "" if the last line is recent enough. `item`, which may be "", is what is being worked on.
  std::string show(uint64_t done, uint64_t total, std::string_view item, Instant now);
  // What to write after all work is done: on a terminal the last state and the end of the line.
  std::string finish(uint64_t done, uint64_t total, Instant now);
  // What to write before other text: removes the line.
  std::string erase() { return line_.erase(); }

 private:
  std::string text(uint64_t done, uint64_t total, std::string_view item, Instant now);

  bool is_terminal_;
  RewrittenLine line_;
  TimeLeft time_left_;
  struct Begin {
    Instant at;
    uint64_t done;
  };
  std::optional<Begin> begin_;
  std::optional<Instant> shown_at_;
};

}  // namespace optserve
