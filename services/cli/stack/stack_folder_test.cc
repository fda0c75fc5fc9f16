#include "cli/stack/stack_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace optserve::cli {
namespace stack_folder_test {

namespace fs = std::filesystem;

class StackFolderTest : public ::testing::Test {
 protected:
  StackFolderTest() : folder_(::testing::TempDir() + "/stack_folder_" + std::to_string(getpid()) + "/inner") {
    folder_.create();
  }
  ~StackFolderTest() override { fs::remove_all(fs::path(folder_.path()).parent_path()); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_.path() + "/" + name, std::ios::binary) << text;
  }

  StackFolder folder_;
};

TEST_F(StackFolderTest, StateRoundTrips) {
  EXPECT_NE(folder_.read_state().refusal().message.find("no stack was started"), std::string::npos);
  StackState state{"ready", "demo", "tcp://127.0.0.1:1", "tcp://127.0.0.1:2", "http://127.0.0.1:3", 30, {}};
  state.processes = {{"scheduler", 17, 9400, 0}, {"worker-0", -1, 9401, 3}};
  folder_.write_state(state);
  const StackState back = folder_.read_state().value();
  EXPECT_EQ(back.state, "ready");
  EXPECT_EQ(back.model, "demo");
  EXPECT_EQ(back.client_endpoint, "tcp://127.0.0.1:1");
  EXPECT_EQ(back.service_endpoint, "tcp://127.0.0.1:2");
  EXPECT_EQ(back.api_url, "http://127.0.0.1:3");
  EXPECT_EQ(back.drain_seconds, 30);
  ASSERT_EQ(back.processes.size(), 2u);
  EXPECT_EQ(back.processes[1].name, "worker-0");
  EXPECT_EQ(back.processes[1].pid, -1);
  EXPECT_EQ(back.processes[1].http_port, 9401);
  EXPECT_EQ(back.processes[1].restarts, 3);
}

TEST_F(StackFolderTest, DamagedStateIsRefused) {
  for (const char* text : {"", "{", "[]", "7", R"({"format":1})", R"({"format":2})", R"({"format":1,"state":5})"}) {
    write("stack.json", text);
    EXPECT_FALSE(folder_.read_state().ok()) << text;
  }
}

TEST_F(StackFolderTest, TheFirstCauseIsFoundInEitherFormOfLog) {
  write("text.log",
        "t I worker[1] config set=\"\"\nt E worker[1] stopped cause=\"no \\\"x\\\" here\"\nt E worker[1] a cause=b\n");
  EXPECT_EQ(folder_.first_cause("text"), "no \"x\" here");
  write("json.log", R"({"level":"info","event":"config","cause":"none"}
{"level":"error","event":"other"}
{"level":"error","event":"stopped","cause":"no \"x\" here"}
{"level":"error","event":"stopped","cause":"later"})");
  EXPECT_EQ(folder_.first_cause("json"), "no \"x\" here");
  write("broken.log", "{\"level\":\"error\",\"cause\"");
  EXPECT_EQ(folder_.first_cause("broken"), "");
}

TEST_F(StackFolderTest, PidFileHoldsAnIdentity) {
  EXPECT_FALSE(folder_.read_pid());
  const auto self = identify_process(getpid());
  folder_.write_pid(*self);
  EXPECT_EQ(folder_.read_pid(), self);
  folder_.remove_pid();
  EXPECT_FALSE(folder_.read_pid());
  write("supervisor.pid", "garbage");
  EXPECT_FALSE(folder_.read_pid());
}

TEST_F(StackFolderTest, OnlyOneHoldsTheLock) {
  {
    const std::optional<StackLock> mine = StackLock::try_take(folder_);
    ASSERT_TRUE(mine);
    EXPECT_FALSE(StackLock::try_take(folder_));
  }
  EXPECT_TRUE(StackLock::try_take(folder_));
}

TEST_F(StackFolderTest, TailsAndRotatesLogs) {
  EXPECT_EQ(folder_.log_tail("worker-0", 2), "");
  write("worker-0.log", "one\ntwo\nthree\nfour");
  EXPECT_EQ(folder_.log_tail("worker-0", 2), "three\nfour\n");
  folder_.rotate_logs();
  EXPECT_FALSE(fs::exists(folder_.log_path("worker-0")));
  EXPECT_TRUE(fs::exists(folder_.log_path("worker-0") + ".1"));
}

TEST_F(StackFolderTest, AFolderThatCannotBeMadeIsNamed) {
  write("file", "text");
  EXPECT_THROW(StackFolder(folder_.path() + "/file/run").create(), Error);
}

}  // namespace stack_folder_test
}  // namespace optserve::cli
