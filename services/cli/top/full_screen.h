// The terminal as a screen that is drawn again and again, and keys without Enter.
#pragma once

#include <termios.h>

#include <string>
#include <vector>

#include "base/clock.h"
#include "cli/top/top_screen.h"

namespace optserve::cli {

class FullScreen {
 public:
  // True if standard input and output are terminals. Else there is no FullScreen.
  static bool is_possible();

  // Switches to the terminal's second screen and back at the end, which leaves what was there.
  FullScreen();
  ~FullScreen();
  FullScreen(const FullScreen&) = delete;
  FullScreen& operator=(const FullScreen&) = delete;

  ScreenSize size() const;
  void draw(const std::vector<std::string>& lines);

  enum class Event { kNone, kKey, kResized, kQuit };
  // Waits for a key, another size or a signal, at most `limit`. `q` and Ctrl-C mean kQuit, other keys kKey.
  Event wait(milliseconds limit);

 private:
  termios before_{};
  ScreenSize drawn_{};
};

}  // namespace optserve::cli
