#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/error.h"
#include "base/shutdown.h"
#include "cli/prompt/input_lines.h"

namespace optserve::cli {
namespace {

constexpr size_t kPipedLineBytesMax = 64 << 20;  // far more than the longest prompt: the refusal names the true size

class PipeLines final : public InputLines {
 public:
  LineOutcome read(std::string& line, bool) override {
    line.clear();
    while (true) {
      const size_t end = buffered_.find('\n');
      const size_t room = kPipedLineBytesMax - std::min(kPipedLineBytesMax, line.size());
      line.append(buffered_, 0, std::min(end, room));
      if (end != std::string::npos) {
        buffered_.erase(0, end + 1);
        return LineOutcome::kLine;
      }
      buffered_.clear();
      if (shutdown_requested()) return LineOutcome::kInterrupted;
      if (is_ended_) return line.empty() ? LineOutcome::kEnd : LineOutcome::kLine;
      fill();
    }
  }

 private:
  void fill() {
    std::array<pollfd, 2> waits{pollfd{STDIN_FILENO, POLLIN, 0}, pollfd{shutdown_fd(), POLLIN, 0}};
    if (poll(waits.data(), waits.size(), -1) < 0 || waits[0].revents == 0) return;
    std::array<char, 1 << 16> bytes{};
    const ssize_t count = ::read(STDIN_FILENO, bytes.data(), bytes.size());
    if (count < 0 && errno != EINTR && errno != EAGAIN) throw errno_error("read standard input");
    if (count > 0) buffered_.assign(bytes.data(), static_cast<size_t>(count));
    is_ended_ = count == 0;
  }

  std::string buffered_;
  bool is_ended_ = false;
};

}  // namespace

std::unique_ptr<InputLines> lines_of_pipe() { return std::make_unique<PipeLines>(); }

}  // namespace optserve::cli
