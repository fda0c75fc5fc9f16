#include "worker/engine_thread.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <deque>
#include <latch>
#include <map>
#include <memory>

#include "base/error.h"

namespace optserve::worker {
namespace engine_thread_test {

batching::PlannerOptions small_options() {
  batching::PlannerOptions options;
  options.num_blocks = 64;
  options.max_sequences = 4;
  options.max_step_tokens = 64;
  options.max_context = 256;
  return options;
}

// Every sampled token is its step's number plus ten, so ids are never the end of text. Steps are finished in the order
// in which they are started, as many ahead as the planner likes.
GroupSteps count_steps() {
  const auto results = std::make_shared<std::deque<batching::StepResult>>();
  const auto start = [results](const batching::StepPlan& plan) {
    batching::StepResult result;
    result.step = plan.step;
    for (const auto& work : plan.work) {
      if (work.sample) result.sampled.push_back({work.slot, static_cast<TokenId>(plan.step) + 10, 0.0f, true});
    }
    results->push_back(std::move(result));
    ASSERT_LE(results->size(), static_cast<size_t>(small_options().pipeline_depth));
  };
  const auto finish = [results] {
    batching::StepResult result = std::move(results->front());
    results->pop_front();
    return result;
  };
  return {start, finish};
}

batching::SequenceRequest request(batching::SequenceId id, int32_t max_new_tokens) {
  batching::SequenceRequest r;
  r.id = id;
  r.tokens = {2, 5, 6};
  r.prompt_tokens = 3;
  r.max_new_tokens = max_new_tokens;
  return r;
}

// Collects events until `finished` sequences have ended or ten seconds are over.
std::map<batching::SequenceId, int> tokens_until(EngineThread& engine, size_t finished) {
  std::map<batching::SequenceId, int> tokens;
  for (size_t ended = 0; ended < finished;) {
    pollfd polled{engine.event_fd(), POLLIN, 0};
    if (poll(&polled, 1, 10'000) <= 0) break;
    for (const batching::SequenceEvent& item : engine.take_events()) {
      if (item.token) ++tokens[item.id];
      if (item.finished || item.refused) ++ended;
    }
  }
  return tokens;
}

TEST(EngineThread, RunsEverySequenceToItsLimit) {
  EngineThread engine(small_options(), count_steps());
  for (batching::SequenceId id = 1; id <= 9; ++id) engine.add(request(id, static_cast<int32_t>(id)));
  const auto tokens = tokens_until(engine, 9);
  ASSERT_EQ(tokens.size(), 9u);
  for (const auto& [id, count] : tokens) EXPECT_EQ(count, static_cast<int>(id));
  EXPECT_GE(engine.steps(), 9u);
}

TEST(EngineThread, ReportsWhatThePlannerRefuses) {
  EngineThread engine(small_options(), count_steps());
  batching::SequenceRequest too_long = request(1, 4);
  too_long.tokens.resize(300, 5);
  engine.add(std::move(too_long));
  pollfd polled{engine.event_fd(), POLLIN, 0};
  ASSERT_EQ(poll(&polled, 1, 10'000), 1);
  const auto events = engine.take_events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_TRUE(events[0].refused);
  EXPECT_EQ(events[0].id, 1u);
}

TEST(EngineThread, CancelStopsTheTokens) {
  std::latch asked(1);  // no step ends before
  GroupSteps steps = count_steps();
  steps.finish = [&asked, finish = steps.finish] {
    asked.wait();
    return finish();
  };
  EngineThread engine(small_options(), steps);
  engine.add(request(1, 200));
  engine.cancel(1);
  engine.add(request(2, 3));
  asked.count_down();
  auto tokens = tokens_until(engine, 1);
  EXPECT_EQ(tokens[2], 3);
  EXPECT_LT(tokens[1], 20);
}

TEST(EngineThread, HandsAFailedStepToTheMessageThread) {
  GroupSteps steps = count_steps();
  steps.finish = []() -> batching::StepResult { throw Error("device lost"); };
  EngineThread engine(small_options(), steps);
  engine.add(request(1, 3));
  pollfd polled{engine.event_fd(), POLLIN, 0};
  ASSERT_EQ(poll(&polled, 1, 10'000), 1);
  EXPECT_THROW((void)engine.take_events(), Error);
}

}  // namespace engine_thread_test
}  // namespace optserve::worker
