// Jobs that wait behind many others are in a file, and nobody can tell.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace parked_jobs_test {

using protocol::JobState;

constexpr int kJobs = 12;
constexpr size_t kInMemory = 3;

SchedulerOptions options_with(size_t in_memory) {
  SchedulerOptions options;
  options.models = {"opt"};
  options.waiting_folder = std::filesystem::temp_directory_path().string();
  options.waiting_in_memory_max = in_memory;
  return options;
}

// A job that differs from the others in whatever waits with it.
protocol::JobSpec spec_of(int i) {
  auto spec = job_spec("k" + std::to_string(i), i % 2 == 0 ? std::string(1 + static_cast<size_t>(i), 'p') : "", 2);
  if (i % 2 == 1) spec.prompt_ids = {2, 5 + i, 6, 7};
  spec.tenant = i % 3 == 0 ? "one" : "other";
  spec.group = "g";
  spec.priority = i % 4 == 0 ? 5 : 0;
  spec.stop = {"stop" + std::to_string(i)};
  spec.bad_words = {"bad"};
  spec.sampling.ignore_eos = true;
  return spec;
}

std::vector<JobId> submit_all(World& world) {
  std::vector<JobId> jobs;
  for (int i = 0; i < kJobs; ++i) jobs.push_back(world.submit(spec_of(i), false));
  for (const auto& question : world.take<protocol::Encode>(world.tokenizer)) {
    protocol::Encoded answer = encode_bytes(question);
    for (protocol::EncodedItem& item : answer.items) item.bad_words = {{4}, {5, 6}};
    world.send(world.tokenizer, std::move(answer));
  }
  return jobs;
}

// What the worker is sent, job after job.
std::vector<protocol::DispatchItem> run_all(World& world) {
  world.add_worker(world.worker, 2, 1);
  std::vector<protocol::DispatchItem> items;
  for (int i = 0; i < kJobs; ++i) {
    items.push_back(world.dispatched(world.worker));
    world.generate(world.worker, items.back(), 0, 2);
    world.tokenize();
  }
  for (auto& item : items) item.job = {};  // drawn at random
  return items;
}

protocol::JobResult asked(World& world, const JobId& job) {
  world.send(world.client, protocol::GetJob{3, job});
  return world.only<protocol::JobStatus>(world.client).result;
}

TEST(ParkedJobs, RunInTheOrderAndAsTheyWouldFromMemory) {
  std::vector<protocol::DispatchItem> items[2];
  for (const bool parks : {false, true}) {
    World world(options_with(parks ? kInMemory : 1'000));
    world.add_tokenizer(world.tokenizer, 1);
    submit_all(world);
    EXPECT_EQ(world.service->jobs().parked().parked(), parks ? kJobs - kInMemory : 0);
    items[parks] = run_all(world);
    EXPECT_EQ(world.service->jobs().parked().parked(), 0u);
    EXPECT_EQ(world.service->jobs().size(), 0u);
  }
  EXPECT_EQ(items[0], items[1]);
}

TEST(ParkedJobs, AnswerWhoeverAsksForThemAndAreParkedAgain) {
  World memory(options_with(1'000)), file(options_with(kInMemory));
  std::vector<protocol::JobResult> results[2];
  for (World* world : {&memory, &file}) {
    world->add_tokenizer(world->tokenizer, 1);
    for (const JobId& job : submit_all(*world)) results[world == &file].push_back(asked(*world, job));
    for (protocol::JobResult& result : results[world == &file]) result.job = {};
    world->send(world->client, protocol::GetGroup{4, "one", "g"});
    EXPECT_EQ(world->only<protocol::GroupStatus>(world->client).open, 4);
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[1].at(2).prompt, "ppp");
  // As many as were read back stay in memory.
  EXPECT_EQ(file.service->jobs().parked().parked(), kJobs - 2 * kInMemory);
  // The same key and payload is the same job.
  file.send(file.client, protocol::Submit{7, false, {spec_of(kJobs - 1)}});
  EXPECT_TRUE(file.only<protocol::SubmitReply>(file.client).outcomes.at(0).duplicate);
}

TEST(ParkedJobs, CanBeCancelledAndRunOutOfTime) {
  World world(options_with(kInMemory));
  world.add_tokenizer(world.tokenizer, 1);
  const std::vector<JobId> jobs = submit_all(world);
  ASSERT_EQ(world.service->jobs().parked().parked(), kJobs - kInMemory);
  world.send(world.client, protocol::Cancel{5, jobs.back()});
  EXPECT_EQ(world.only<protocol::JobStatus>(world.client).result.state, JobState::kCancelled);
  EXPECT_EQ(asked(world, jobs.back()).state, JobState::kCancelled);
  EXPECT_EQ(asked(world, jobs.back()).key, spec_of(kJobs - 1).key);
  world.advance(milliseconds(spec_of(0).ttl_ms + 1'000));
  for (int i = 0; i < kJobs - 1; ++i) {
    EXPECT_EQ(asked(world, jobs[static_cast<size_t>(i)]).state, JobState::kExpired);
  }
  EXPECT_EQ(world.service->jobs().parked().parked(), 0u);
}

TEST(ParkedJobs, StayInMemoryAsLongAsTheyAreFollowed) {
  World world(options_with(0));
  world.submit(ids_spec("followed"));
  EXPECT_EQ(world.service->jobs().parked().parked(), 0u);
  world.submit(ids_spec("alone"), false);
  EXPECT_EQ(world.service->jobs().parked().parked(), 1u);
}

TEST(BodyFile, GivesBackWhatItWasGivenAndUsesPlacesAgain) {
  BodyFile file(std::filesystem::temp_directory_path().string());
  const uint64_t first = file.put("first").value();
  const uint64_t large = file.put(std::string(100'000, 'l')).value();
  EXPECT_EQ(file.take(first), "first");
  const uint64_t size = file.size_bytes();
  const uint64_t next = file.put("other").value();
  EXPECT_EQ(file.size_bytes(), size);
  EXPECT_EQ(file.take(large), std::string(100'000, 'l'));
  EXPECT_EQ(file.take(next), "other");
  EXPECT_EQ(file.held(), 0u);
  EXPECT_EQ(file.size_bytes(), 0u);
  EXPECT_THROW(file.take(first), Error);
}

TEST(BodyFile, NeedsAFolder) { EXPECT_THROW(BodyFile("/nonexistent/folder"), Error); }

}  // namespace parked_jobs_test
}  // namespace optserve::scheduler::testing
