#include "cli/bench/device_usage.h"

#include <gtest/gtest.h>

#include <string>

namespace optserve::cli {
namespace device_usage_test {

const std::string kMetrics =
    "# HELP optserve_worker_device_busy_seconds_total Time of rank 0's device in steps\n"
    "# TYPE optserve_worker_device_busy_seconds_total gauge\n"
    "optserve_worker_device_busy_seconds_total 12.5\n"
    "# TYPE optserve_worker_device_idle_seconds_total gauge\n"
    "optserve_worker_device_idle_seconds_total 2.5e-01\n"
    "optserve_worker_device_idle_seconds_total_more 7\n";

TEST(DeviceUsage, IsReadFromMetrics) {
  const auto usage = parse_device_usage(kMetrics);
  ASSERT_TRUE(usage);
  EXPECT_DOUBLE_EQ(usage->busy_ms, 12500);
  EXPECT_DOUBLE_EQ(usage->idle_ms, 250);
  const auto last_line =
      parse_device_usage(kMetrics.substr(0, kMetrics.find("\noptserve_worker_device_idle_seconds_total_")));
  ASSERT_TRUE(last_line);
  EXPECT_DOUBLE_EQ(last_line->idle_ms, 250);
}

TEST(DeviceUsage, LabelsAreSkipped) {
  const auto usage = parse_device_usage(
      "optserve_worker_device_busy_seconds_total{model=\"a b\",rank=\"0\"} 2\n"
      "optserve_worker_device_idle_seconds_total{model=\"a b\",rank=\"0\"} 0.5\n");
  ASSERT_TRUE(usage);
  EXPECT_DOUBLE_EQ(usage->busy_ms, 2000);
  EXPECT_DOUBLE_EQ(usage->idle_ms, 500);
}

TEST(DeviceUsage, WithoutBothSumsIsNotKnown) {
  EXPECT_FALSE(parse_device_usage(""));
  EXPECT_FALSE(parse_device_usage("optserve_worker_device_busy_seconds_total 1\n"));
  EXPECT_FALSE(
      parse_device_usage("optserve_worker_device_busy_seconds_total 1\n"
                         "optserve_worker_device_idle_seconds_total_more 1\n"));
  for (const std::string wrong : {"", " ", " x", " -1", " nan"}) {
    EXPECT_FALSE(
        parse_device_usage("optserve_worker_device_busy_seconds_total 1\n"
                           "optserve_worker_device_idle_seconds_total" +
                           wrong + "\n"))
        << wrong;
  }
}

TEST(DeviceUsage, BetweenTwoMomentsOfOneWorker) {
  const DeviceUsage before{1000, 50}, after{1500, 60};
  const auto between = usage_between(before, after);
  ASSERT_TRUE(between);
  EXPECT_DOUBLE_EQ(between->busy_ms, 500);
  EXPECT_DOUBLE_EQ(between->idle_ms, 10);
  EXPECT_FALSE(usage_between(after, before)) << "another worker in its place counts from zero";
  EXPECT_FALSE(usage_between(before, before)) << "nothing ran";
  EXPECT_FALSE(usage_between(std::nullopt, after));
  EXPECT_FALSE(usage_between(before, std::nullopt));
}

}  // namespace device_usage_test
}  // namespace optserve::cli
