#include "base/machine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "base/termination.h"

namespace optserve {
namespace machine_test {

// A tree of files in place of /proc and /sys, as a container engine sets it up.
class Machine : public ::testing::Test {
 protected:
  Machine() : root_(::testing::TempDir() + "machine-" + std::to_string(getpid())) {}
  ~Machine() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text << "\n";
  }
  std::string read(const std::string& path) const {
    std::ifstream file(root_ + path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void expect(double cores, int64_t memory_bytes) const {
    const CgroupLimits limits = read_cgroup_limits(root_);
    EXPECT_DOUBLE_EQ(limits.cores, cores);
    EXPECT_EQ(limits.memory_bytes, memory_bytes);
  }

  const std::string root_;
};

constexpr const char* kVersion2 = "31 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
constexpr int64_t kGiB = int64_t{1} << 30;

TEST_F(Machine, VersionTwoTakesTheStrictestLimitOnTheWayUp) {
  write("/proc/self/mountinfo", kVersion2);
  write("/proc/self/cgroup", "0::/kubepods/pod/container");
  write("/sys/fs/cgroup/kubepods/pod/container/cpu.max", "max 100000");
  write("/sys/fs/cgroup/kubepods/pod/container/memory.max", std::to_string(4 * kGiB));
  write("/sys/fs/cgroup/kubepods/pod/cpu.max", "250000 100000");
  write("/sys/fs/cgroup/kubepods/pod/memory.max", std::to_string(3 * kGiB));
  write("/sys/fs/cgroup/kubepods/memory.max", "max");
  expect(2.5, 3 * kGiB);
}

TEST_F(Machine, VersionTwoInANamespaceOfItsOwn) {
  write("/proc/self/mountinfo", kVersion2);
  write("/proc/self/cgroup", "0::/");
  write("/sys/fs/cgroup/cpu.max", "150000 100000");
  write("/sys/fs/cgroup/memory.max", "1073741824");
  expect(1.5, kGiB);
}

TEST_F(Machine, VersionOneInAContainerThatSeesItsGroupAsTheRootOfTheMount) {
  write("/proc/self/mountinfo",
        "41 30 0:30 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
        "42 30 0:31 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory");
  write("/proc/self/cgroup", "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc");
  write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "400000");
  write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000");
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(2 * kGiB));
  expect(4, 2 * kGiB);
}

TEST_F(Machine, VersionOneWithoutLimits) {
  write("/proc/self/mountinfo",
        "42 30 0:31 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
        "43 30 0:32 / /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu");
  write("/proc/self/cgroup", "5:memory:/\n3:cpu:/");
  write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1");
  write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  expect(0, 0);
}

TEST_F(Machine, BothVersionsBesideEachOther) {
  write("/proc/self/mountinfo",
        "41 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        "42 30 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "43 30 0:32 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct");
  write("/proc/self/cgroup", "4:memory:/pod/one\n2:cpu,cpuacct:/pod/one\n0::/pod/one");
  write("/sys/fs/cgroup/memory/pod/memory.limit_in_bytes", std::to_string(kGiB));
  write("/sys/fs/cgroup/cpu,cpuacct/pod/one/cpu.cfs_quota_us", "50000");
  write("/sys/fs/cgroup/cpu,cpuacct/pod/one/cpu.cfs_period_us", "100000");
  expect(0.5, kGiB);
}

TEST_F(Machine, WhatCannotBeReadIsNoLimit) {
  expect(0, 0);
  write("/proc/self/mountinfo", "short\n" + std::string(kVersion2));
  write("/proc/self/cgroup", "nonsense");
  write("/sys/fs/cgroup/cpu.max", "many");
  expect(0, 0);
}

TEST_F(Machine, ThisMachineHasSomething) {
  EXPECT_GE(usable_cores(), 1);
  EXPECT_LE(usable_cores(), sysconf(_SC_NPROCESSORS_ONLN));
  EXPECT_GT(usable_memory_bytes(), 0);
}

TEST_F(Machine, TheTerminationMessageIsOneLineAndTheLastOne) {
  std::filesystem::create_directories(root_);
  set_termination_log(root_ + "/log");
  write_termination_message(std::string(9'000, 'x'));
  EXPECT_EQ(read("/log").size(), 4'096u);
  write_termination_message("two\nlines\x1b");
  EXPECT_EQ(read("/log"), "two lines \n");
  set_termination_log(root_ + "/no/such/folder");
  write_termination_message("nobody reads this");
  set_termination_log("");
}

}  // namespace machine_test
}  // namespace optserve
