#include <poll.h>

#include <cstdio>

#include "base/shutdown.h"
#include "cli/commands/command.h"
#include "cli/doctor/preflight.h"

namespace optserve::cli {
namespace {

constexpr int kLookMs = 1'000;
constexpr seconds kSayAgain{60};

class PreflightCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command(
        "preflight", "Wait until the checkpoints that a service needs are there, and say what is missing", selected);
    command.add("model", models_, "NAME=FOLDER, or FOLDER, of a sharded checkpoint; repeatable").separated_by_commas();
    command.add("world", world_, "Ranks of the group, which must be able to share the checkpoint's shards")
        .range(1, 1024);
    command.add("shared-memory-mib", shared_memory_mib_, "MiB that /dev/shm must hold; groups of GPUs need 1024")
        .range(0, 1 << 20);
    command.add("wait-seconds", wait_seconds_, "Longest time to wait for checkpoints").range(0, 1e6);
    command.add_example("optserve preflight --model opt-6.7b=/models/opt-6.7b --world 2",
                        "as the init container of a worker");
    command.add_example("optserve preflight --model /models/opt-30b --wait-seconds 0", "look once");
    command.add_example("optserve preflight --model a=/models/a,b=/models/b", "for a process that serves two models");
  }

  int run(const Clock& clock) override {
    install_shutdown_signals();
    if (models_.empty()) throw CommandFailure{kExitUsage, "preflight: expected at least one --model NAME=FOLDER"};
    if (const Status memory = check_shared_memory("/dev/shm", shared_memory_mib_); !memory.ok()) {
      throw CommandFailure{kExitConfiguration, memory.refusal().message};
    }
    const Instant end = clock.now() + seconds(wait_seconds_);
    for (const std::string& model : models_) {
      if (!wait_for(model, clock, end)) return shutdown_requested() ? kExitInterrupted : kExitFailed;
    }
    std::printf("ready: %zu checkpoint%s\n", models_.size(), models_.size() == 1 ? "" : "s");
    return kExitOk;
  }

 private:
  bool wait_for(const std::string& model, const Clock& clock, Instant end) {
    std::string said;
    Instant said_at = clock.now();
    for (;;) {
      const auto missing = missing_of_model(model, world_);
      if (!missing.ok()) throw CommandFailure{kExitConfiguration, missing.refusal().message};
      if (missing.value().empty()) return true;
      const bool is_over = clock.now() >= end;
      if (missing.value() != said || clock.now() - said_at >= kSayAgain || is_over) {
        std::fprintf(stderr, "preflight: %s%s\n", is_over ? "" : "waiting: ", missing.value().c_str());
        said = missing.value();
        said_at = clock.now();
      }
      if (is_over) return false;
      pollfd signal{shutdown_fd(), POLLIN, 0};
      poll(&signal, 1, kLookMs);
      if (shutdown_requested()) return false;
    }
  }

  std::vector<std::string> models_;
  int world_ = 1;
  int64_t shared_memory_mib_ = 0;
  int64_t wait_seconds_ = 86'400;
};

}  // namespace

std::unique_ptr<Command> make_preflight_command() { return std::make_unique<PreflightCommand>(); }

}  // namespace optserve::cli
