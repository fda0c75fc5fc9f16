#include <poll.h>

#include <cstdio>
#include <optional>

#include "base/shutdown.h"
#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/top/full_screen.h"
#include "cli/top/top_screen.h"
#include "client/async_client.h"
#include "client/future.h"

namespace optserve::cli {
namespace {

class TopCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command =
        parser.add_command("top", "Watch schedulers, models and services in the terminal; q quits", selected);
    add_options(command, connection_options_);
    command.add("interval", interval_, "Seconds between two looks").range(0.1, 3600);
    command.add("count", count_, "Number of looks; 0: until q or Ctrl-C").range(0, 1'000'000);
    command.add_example("optserve top", "a view that stays current");
    command.add_example("optserve top --interval 0.2 --scheduler tcp://a:5555,tcp://b:5555",
                        "of two schedulers, quick");
    command.add_example("optserve top --count 60 > log.txt", "a minute as text, without a terminal");
  }

  int run(const Clock& clock) override {
    Connection connection = Connection::open(connection_options_);
    install_shutdown_signals();
    SystemLook now{connection.status(), clock.now(), clock.wall_ms()};
    if (!FullScreen::is_possible()) return print_looks(connection.client(), std::move(now), clock);
    FullScreen screen;
    watch(screen, connection.client(), std::move(now), clock);
    return kExitOk;
  }

 private:
  milliseconds interval() const { return milliseconds(static_cast<int64_t>(interval_ * 1000)); }

  // The schedulers are asked while the screen goes on taking keys.
  void watch(FullScreen& screen, Client& client, SystemLook now, const Clock& clock) const {
    std::optional<SystemLook> before;
    Instant due = now.at + interval();
    std::future<Answers<protocol::SystemStatus>> asked;
    for (int looks = 1;;) {
      screen.draw(top_screen(now, before, screen.size()));
      if (count_ > 0 && looks >= count_) return;
      while (true) {
        if (!asked.valid() && clock.now() >= due) {
          asked = client::future_of<Answers<protocol::SystemStatus>>([&](auto done) { client.async().status(done); });
        }
        const FullScreen::Event event = screen.wait(kPoll);
        if (event == FullScreen::Event::kQuit) return;
        if (event == FullScreen::Event::kResized) break;
        if (event == FullScreen::Event::kKey) due = clock.now();
        if (!asked.valid() || asked.wait_for(milliseconds(0)) != std::future_status::ready) continue;
        before = std::exchange(now, {asked.get(), clock.now(), clock.wall_ms()});
        due = now.at + interval();
        ++looks;
        break;
      }
    }
  }

  int print_looks(Client& client, SystemLook now, const Clock& clock) const {
    std::optional<SystemLook> before;
    for (int looks = 1;; ++looks) {
      for (const std::string& line : top_screen(now, before, {})) std::printf("%s\n", line.c_str());
      if (std::fflush(stdout) != 0) return kExitOk;  // the reader has gone
      if (count_ > 0 && looks >= count_) return kExitOk;
      pollfd entry{shutdown_fd(), POLLIN, 0};
      if (poll(&entry, 1, static_cast<int>(interval().count())) > 0) return kExitOk;
      std::printf("\n");
      before = std::exchange(now, {client.status(), clock.now(), clock.wall_ms()});
    }
  }

  static constexpr milliseconds kPoll{50};

  ConnectionOptions connection_options_;
  double interval_ = 1;
  int count_ = 0;
};

}  // namespace

std::unique_ptr<Command> make_top_command() { return std::make_unique<TopCommand>(); }

}  // namespace optserve::cli
