// Job groups: counts by state, and cancelling them together.
#include <gtest/gtest.h>

#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace groups_test {

using protocol::JobState;

protocol::JobSpec in_group(const std::string& key, const std::string& group, const std::string& tenant = "") {
  auto spec = job_spec(key, "once", 1);
  spec.group = group;
  spec.tenant = tenant;
  return spec;
}

protocol::GroupStatus status_of(World& world, const std::string& tenant, const std::string& group) {
  world.send(world.client, protocol::GetGroup{3, tenant, group, false});
  return world.only<protocol::GroupStatus>(world.client);
}

TEST(Groups, CountOpenAndEndedJobsByTenant) {
  World world;
  world.add_services();
  const auto done = world.submit_and_dispatch(in_group("done", "g"));
  world.generate(world.worker, done, 0, 1);
  world.tokenize();
  const JobId cancelled = world.submit(in_group("cancelled", "g"));
  world.send(world.client, protocol::Cancel{1, cancelled});
  world.submit(in_group("open", "g"));
  world.submit(in_group("theirs", "g", "other"));
  const auto status = status_of(world, "", "g");
  EXPECT_EQ(status, (protocol::GroupStatus{3, 1, 1, 0, 1, 0, 0}));
  EXPECT_EQ(status_of(world, "other", "g").open, 1);
  EXPECT_EQ(status_of(world, "", "nobody"), protocol::GroupStatus{3});
  world.send(world.client, protocol::GetGroup{3, "", "", false});
  EXPECT_EQ(world.only<protocol::Refused>(world.client).code, ErrorCode::kBadRequest);
}

TEST(Groups, ForgetJobsWhoseKeysExpire) {
  World world;
  world.add_services();
  auto spec = in_group("short", "g");
  spec.result_ttl_ms = 5'000;
  const auto item = world.submit_and_dispatch(spec);
  world.generate(world.worker, item, 0, 1);
  world.tokenize();
  EXPECT_EQ(status_of(world, "", "g").succeeded, 1);
  world.advance(seconds(30));
  EXPECT_EQ(status_of(world, "", "g").succeeded, 0);
}

TEST(Groups, ForgetJobsWhoseKeysAreEvicted) {
  SchedulerOptions options;
  options.known_keys_max = 2;
  World world(options);
  world.add_services();
  for (int i = 0; i < 4; ++i) {
    const JobId id = world.submit(in_group("k" + std::to_string(i), "g"));
    world.send(world.client, protocol::Cancel{1, id});
  }
  EXPECT_EQ(status_of(world, "", "g").cancelled, 2);
}

TEST(Groups, ADeadJobThatIsPutBackIsOpenAgain) {
  World world;
  world.add_services();
  auto spec = in_group("poison", "g");
  spec.max_attempts = 1;
  const auto item = world.submit_and_dispatch(spec);
  world.send(world.worker, protocol::LeaseFailed{1, item.lease, ErrorCode::kInternal, "rank died", true});
  EXPECT_EQ(status_of(world, "", "g").dead, 1);
  world.send(world.client, protocol::Requeue{1, item.job});
  world.advance(milliseconds(100));
  const auto status = status_of(world, "", "g");
  EXPECT_EQ(status.dead, 0);
  EXPECT_EQ(status.open, 1);
}

TEST(Groups, AreCancelledABoundedNumberATurnAndAnsweredAtTheEnd) {
  SchedulerOptions options;
  options.operator_jobs_per_turn = 10;
  World world(options);
  world.add_services();
  for (int i = 0; i < 35; ++i) world.submit(in_group("k" + std::to_string(i), "g"), false);
  const JobId other = world.submit(in_group("other", "h"), false);
  world.send(world.client, protocol::GetGroup{4, "", "g", true});
  EXPECT_EQ(world.service->jobs().size(), 26u);
  EXPECT_TRUE(world.take<protocol::GroupStatus>(world.client).empty());
  const JobId late = world.submit(in_group("late", "g"), false);  // not meant
  world.advance(seconds(1));
  EXPECT_EQ(world.only<protocol::GroupStatus>(world.client), (protocol::GroupStatus{4, 1, 0, 0, 35, 0, 0}));
  EXPECT_NE(world.service->jobs().find(other), nullptr);
  EXPECT_NE(world.service->jobs().find(late), nullptr);
  // A repetition has nothing left to cancel except the late job.
  world.send(world.client, protocol::GetGroup{4, "", "g", true});
  EXPECT_EQ(world.only<protocol::GroupStatus>(world.client), (protocol::GroupStatus{4, 0, 0, 0, 36, 0, 0}));
}

TEST(Groups, LeaveNothingBehind) {
  GroupTable groups;
  Job job;
  job.order = 1;
  job.spec().group = "g";
  groups.opened(job);
  groups.ended("", "g", JobState::kDead);
  groups.closed(job, 1);
  EXPECT_EQ(groups.size(), 1u);
  groups.forgotten("", "g", JobState::kDead);
  EXPECT_EQ(groups.size(), 0u);
}

}  // namespace groups_test
}  // namespace optserve::scheduler::testing
