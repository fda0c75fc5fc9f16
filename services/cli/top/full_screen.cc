#include "cli/top/full_screen.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "base/error.h"
#include "base/shutdown.h"

namespace optserve::cli {
namespace {

// The signal of a change of size ends a poll(), but it may arrive between two polls, so the size is also checked this
// often.
constexpr milliseconds kLook{100};

void put(const char* text) {
  std::fputs(text, stdout);
  std::fflush(stdout);
}

}  // namespace

bool FullScreen::is_possible() { return isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0; }

FullScreen::FullScreen() {
  if (tcgetattr(STDIN_FILENO, &before_) != 0) throw errno_error("read the terminal's settings");
  termios raw = before_;
  raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);  // Ctrl-C stays a signal
  raw.c_cc[VMIN] = 0;
  raw.c_cc[VTIME] = 0;
  if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) != 0) throw errno_error("set up the terminal");
  put("\x1b[?1049h\x1b[?25l");  // second screen, no cursor
}

FullScreen::~FullScreen() {
  put("\x1b[?25h\x1b[?1049l");
  tcsetattr(STDIN_FILENO, TCSANOW, &before_);
}

ScreenSize FullScreen::size() const {
  winsize window{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_col == 0 || window.ws_row == 0) return {80, 24};
  return {window.ws_col, window.ws_row};
}

void FullScreen::draw(const std::vector<std::string>& lines) {
  drawn_ = size();
  std::string text = "\x1b[H";
  for (size_t i = 0; i < lines.size(); ++i) text += (i > 0 ? "\n" : "") + lines[i] + "\x1b[K";  // the line's old rest
  put((text + "\x1b[J").c_str());                                                               // and lines below
}

FullScreen::Event FullScreen::wait(milliseconds limit) {
  for (milliseconds left = limit;; left -= kLook) {
    std::array<pollfd, 2> entries{pollfd{STDIN_FILENO, POLLIN, 0}, pollfd{shutdown_fd(), POLLIN, 0}};
    poll(entries.data(), entries.size(), static_cast<int>(std::clamp(left, milliseconds(0), kLook).count()));
    if (shutdown_requested()) return Event::kQuit;
    char key = 0;
    if ((entries[0].revents & POLLIN) != 0) {
      return read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q' ? Event::kQuit : Event::kKey;
    }
    if ((entries[0].revents & (POLLHUP | POLLERR)) != 0) return Event::kQuit;
    const ScreenSize now = size();
    if (now.columns != drawn_.columns || now.rows != drawn_.rows) return Event::kResized;
    if (left <= kLook) return Event::kNone;
  }
}

}  // namespace optserve::cli
