#include "cli/stack/stack_supervisor.h"

#include <gtest/gtest.h>

#include <csignal>
#include <map>
#include <set>

#include "base/error.h"

namespace optserve::cli {
namespace stack_supervisor_test {

using State = StackSupervisor::State;

// Processes that live until the test says otherwise.
class FakeHost final : public ProcessHost {
 public:
  pid_t start(const PlannedProcess& process) override {
    if (unstartable.contains(process.name)) throw Error("no such program");
    started.push_back(process.name);
    running[process.name] = next_pid_;
    return next_pid_++;
  }
  std::optional<std::string> poll_exit(pid_t pid) override {
    const auto found = exits.find(pid);
    if (found == exits.end()) return std::nullopt;
    const std::string how = found->second;
    exits.erase(found);
    return how;
  }
  void signal(pid_t pid, int number) override {
    signals.emplace_back(name_of(pid), number);
    if (number == SIGKILL || !stubborn.contains(name_of(pid))) end(name_of(pid), "ended");
  }
  bool is_ready(const PlannedProcess& process) override {
    return running.contains(process.name) && ready.contains(process.name);
  }

  void end(const std::string& name, const std::string& how) { exits[running.at(name)] = how; }
  std::string name_of(pid_t pid) const {
    for (const auto& [name, its_pid] : running) {
      if (its_pid == pid) return name;
    }
    return "nobody";
  }

  std::vector<std::string> started;
  std::map<std::string, pid_t> running;  // the last pid of each
  std::map<pid_t, std::string> exits;
  std::vector<std::pair<std::string, int>> signals;
  std::set<std::string> ready, unstartable, stubborn;

 private:
  pid_t next_pid_ = 100;
};

class StackSupervisorTest : public ::testing::Test {
 protected:
  StackSupervisorTest()
      : supervisor_({{"scheduler", "s", {}, 1}, {"tokenizer", "t", {}, 2}, {"worker-0", "w", {}, 3}}, host_, {},
                    clock_.now()) {}

  void tick(Duration later = milliseconds(200)) {
    clock_.advance(later);
    supervisor_.on_tick(clock_.now());
  }
  void make_ready() {
    host_.ready = {"scheduler", "tokenizer", "worker-0"};
    for (int i = 0; i < 4; ++i) tick();
    ASSERT_EQ(supervisor_.state(), State::kReady);
  }
  size_t starts(const std::string& name) const {
    return static_cast<size_t>(std::count(host_.started.begin(), host_.started.end(), name));
  }

  FakeHost host_;
  FakeClock clock_;
  StackSupervisor supervisor_;
};

TEST_F(StackSupervisorTest, StartsTheSchedulerAloneThenTheRest) {
  tick();
  tick();
  EXPECT_EQ(host_.started, std::vector<std::string>{"scheduler"});
  host_.ready = {"scheduler", "tokenizer"};
  tick();
  EXPECT_EQ(host_.started.size(), 3u);
  tick();
  EXPECT_EQ(supervisor_.state(), State::kStarting);
  host_.ready.insert("worker-0");
  tick();
  EXPECT_EQ(supervisor_.state(), State::kReady);
  EXPECT_TRUE(supervisor_.take_changed());
  EXPECT_FALSE(supervisor_.take_changed());
}

TEST_F(StackSupervisorTest, ADeathDuringTheStartFailsItAndEndsTheOthers) {
  host_.ready = {"scheduler"};
  tick();
  tick();
  host_.end("worker-0", "exited with status 1");
  tick();
  EXPECT_EQ(supervisor_.failed_process(), "worker-0");
  EXPECT_EQ(supervisor_.failure(), "worker-0 exited with status 1 before it was ready");
  for (int i = 0; i < 3; ++i) tick();
  EXPECT_EQ(supervisor_.state(), State::kStopped);
  EXPECT_EQ(starts("worker-0"), 1u);
}

TEST_F(StackSupervisorTest, AProgramThatCannotBeStartedFailsTheStart) {
  host_.ready = {"scheduler"};
  host_.unstartable = {"tokenizer"};
  for (int i = 0; i < 5; ++i) tick();
  EXPECT_EQ(supervisor_.state(), State::kStopped);
  EXPECT_EQ(supervisor_.failure(), "tokenizer could not be started: no such program before it was ready");
}

TEST_F(StackSupervisorTest, AStartThatTakesTooLongNamesWhoIsNotReady) {
  host_.ready = {"scheduler", "tokenizer"};
  tick();
  tick();
  tick(seconds(301));
  EXPECT_EQ(supervisor_.failure(), "worker-0 was not ready within 300 s");
}

TEST_F(StackSupervisorTest, RestartsWithDoublingBackOffThatALongLifeResets) {
  make_ready();
  for (const int wait : {1, 2, 4, 8, 16, 30, 30}) {
    const size_t before = starts("worker-0");
    host_.end("worker-0", "was killed by signal 9 (Killed)");
    tick(milliseconds(10));
    tick(seconds(wait) - milliseconds(20));
    EXPECT_EQ(starts("worker-0"), before) << wait;
    tick(milliseconds(20));
    EXPECT_EQ(starts("worker-0"), before + 1) << wait;
  }
  EXPECT_EQ(supervisor_.members()[2].restarts, 7);
  tick(seconds(61));
  host_.end("worker-0", "exited with status 1");
  tick(milliseconds(10));
  tick(seconds(1));
  EXPECT_EQ(supervisor_.members()[2].restarts, 8);
  EXPECT_EQ(supervisor_.state(), State::kReady);
}

TEST_F(StackSupervisorTest, AProgramThatVanishedIsTriedAgain) {
  make_ready();
  host_.unstartable = {"worker-0"};
  host_.end("worker-0", "exited with status 1");
  tick(milliseconds(10));
  tick(seconds(2));
  host_.unstartable.clear();
  tick(seconds(5));
  EXPECT_EQ(starts("worker-0"), 2u);
}

TEST_F(StackSupervisorTest, StopsTheSchedulerFirstSoThatItCanDrain) {
  make_ready();
  host_.stubborn = {"scheduler"};
  supervisor_.begin_stop(clock_.now());
  tick(seconds(1));
  EXPECT_EQ(host_.signals, (std::vector<std::pair<std::string, int>>{{"scheduler", SIGTERM}}));
  host_.end("scheduler", "exited with status 0");
  tick();
  EXPECT_EQ(host_.signals.size(), 3u);
  tick();
  EXPECT_EQ(supervisor_.state(), State::kStopped);
  EXPECT_EQ(supervisor_.failure(), "");
  for (const auto& [name, number] : host_.signals) EXPECT_EQ(number, SIGTERM) << name;
  EXPECT_EQ(host_.started.size(), 3u);
}

TEST_F(StackSupervisorTest, KillsWhatDoesNotEndInTime) {
  make_ready();
  host_.stubborn = {"scheduler", "worker-0"};
  supervisor_.begin_stop(clock_.now());
  tick(seconds(31));
  EXPECT_EQ(host_.signals.size(), 1u);
  tick(seconds(2));
  tick();
  EXPECT_EQ(supervisor_.state(), State::kStopping);
  tick(seconds(33));
  tick();
  EXPECT_EQ(supervisor_.state(), State::kStopped);
  EXPECT_EQ(host_.signals.back(), (std::pair<std::string, int>{"worker-0", SIGKILL}));
}

TEST_F(StackSupervisorTest, AStopThatIsCutShortKillsEveryProcessAtOnce) {
  make_ready();
  host_.stubborn = {"scheduler", "tokenizer", "worker-0"};
  supervisor_.end_stop();
  tick();
  EXPECT_EQ(supervisor_.state(), State::kReady) << "nobody has asked for a stop";
  supervisor_.begin_stop(clock_.now());
  tick();
  supervisor_.end_stop();
  supervisor_.end_stop();
  tick();
  EXPECT_EQ(supervisor_.state(), State::kStopped);
  EXPECT_EQ(supervisor_.failure(), "");
  EXPECT_EQ(host_.signals,
            (std::vector<std::pair<std::string, int>>{
                {"scheduler", SIGTERM}, {"scheduler", SIGKILL}, {"tokenizer", SIGKILL}, {"worker-0", SIGKILL}}));
}

}  // namespace stack_supervisor_test
}  // namespace optserve::cli
