// What operators may ask, one behaviour at a time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace operator_requests_test {

using protocol::ControlAction;
using protocol::ControlScope;
using protocol::JobState;
using protocol::QueueMode;
using ::testing::HasSubstr;

protocol::SystemStatus control(World& world, ControlAction action, ControlScope scope, const std::string& name = "") {
  world.send(world.client, protocol::Control{5, action, scope, name});
  return world.only<protocol::SystemStatus>(world.client);
}

// Uses up the job's only attempt.
JobId make_dead(World& world, const std::string& key, const std::string& group = "") {
  auto spec = job_spec(key);
  spec.max_attempts = 1;
  spec.group = group;
  const auto item = world.submit_and_dispatch(spec);
  world.send(world.worker, protocol::LeaseFailed{1, item.lease, ErrorCode::kInternal, "rank died", true});
  world.take<protocol::JobFinished>(world.client);
  return item.job;
}

protocol::JobList list(World& world, protocol::ListJobs question) {
  question.request = 9;
  world.send(world.client, question);
  world.advance(milliseconds(100));
  const auto answer = world.only<protocol::JobList>(world.client);
  EXPECT_EQ(answer.request, 9u);
  return answer;
}

TEST(Modes, APausedQueueAcceptsAndStartsNothingUntilItIsResumed) {
  World world;
  world.add_services();
  const auto running = world.submit_and_dispatch(job_spec("running", "once", 2));
  EXPECT_EQ(control(world, ControlAction::kPause, ControlScope::kQueue).mode, QueueMode::kPaused);
  world.submit(job_spec("waits"));
  world.tokenize();
  world.advance(seconds(1));
  EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker).empty());
  world.generate(world.worker, running, 0, 2);
  world.tokenize();
  EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.state, JobState::kSucceeded);
  EXPECT_EQ(control(world, ControlAction::kResume, ControlScope::kQueue).mode, QueueMode::kOpen);
  world.dispatched(world.worker);
}

TEST(Modes, ADrainingModelRefusesJobsAndWorksOffWhatItHas) {
  World world;
  world.add_services();
  world.submit(job_spec("before"));
  const auto status = control(world, ControlAction::kDrain, ControlScope::kModel, "opt");
  ASSERT_EQ(status.models.size(), 1u);
  EXPECT_EQ(status.models[0].name, "opt");
  EXPECT_EQ(status.models[0].mode, QueueMode::kDraining);
  const auto refused = world.submit_refused(job_spec("after"));
  EXPECT_EQ(refused.error, ErrorCode::kUnavailable);
  EXPECT_THAT(refused.message, HasSubstr("model opt is draining"));
  EXPECT_TRUE(world.submit_refused(job_spec("before")).duplicate);  // what is known stays known
  world.tokenize();
  world.dispatched(world.worker);
  control(world, ControlAction::kResume, ControlScope::kModel, "opt");
  world.submit(job_spec("after"));
}

TEST(Modes, APausedServiceFinishesWhatItHasAndGetsNothingElse) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("a", "once", 1));
  const auto status = control(world, ControlAction::kPause, ControlScope::kService, instance(2).hex());
  for (const auto& service : status.services) EXPECT_EQ(service.paused, service.kind == "worker");
  world.submit(job_spec("b"));
  world.tokenize();
  EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker).empty());
  world.generate(world.worker, item, 0, 1);
  world.tokenize();
  EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.state, JobState::kSucceeded);
  world.add_worker(world.worker, 2);  // registers again: still held
  EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker).empty());
  control(world, ControlAction::kPause, ControlScope::kService, "tokenizer");  // by its name
  world.submit(job_spec("c"));
  EXPECT_TRUE(world.take<protocol::Encode>(world.tokenizer).empty());
  control(world, ControlAction::kResume, ControlScope::kService, "tokenizer");
  EXPECT_EQ(world.take<protocol::Encode>(world.tokenizer).size(), 1u);
  control(world, ControlAction::kResume, ControlScope::kService, instance(2).hex());
  world.dispatched(world.worker);
}

TEST(Modes, UnknownNamesAreRefusedWithTheKnownOnes) {
  SchedulerOptions options;
  options.models = {"later"};
  World world(options);
  world.add_services();
  world.send(world.client, protocol::Control{1, ControlAction::kPause, ControlScope::kModel, "gpt"});
  auto refused = world.only<protocol::Refused>(world.client);
  EXPECT_EQ(refused.code, ErrorCode::kNotFound);
  EXPECT_EQ(refused.message, "model gpt is not known; known: later, opt");
  world.send(world.client, protocol::Control{1, ControlAction::kPause, ControlScope::kService, "w9"});
  EXPECT_EQ(world.only<protocol::Refused>(world.client).message, "service w9 is not known; known: tokenizer, worker");
  control(world, ControlAction::kPause, ControlScope::kModel, "later");  // before anyone has registered it
  world.send(world.client, protocol::Control{1, ControlAction::kPause, ControlScope::kQueue, "opt"});
  EXPECT_EQ(world.only<protocol::Refused>(world.client).code, ErrorCode::kBadRequest);
}

TEST(Modes, NamesAreBounded) {
  QueueModes modes;
  for (size_t i = 0; i < limits::kHeldNamesMax; ++i) {
    ASSERT_TRUE(modes.set(ControlScope::kModel, "m" + std::to_string(i), QueueMode::kPaused).ok());
  }
  EXPECT_EQ(modes.set(ControlScope::kModel, "more", QueueMode::kPaused).refusal().code, ErrorCode::kBusy);
  EXPECT_TRUE(modes.set(ControlScope::kModel, "m1", QueueMode::kOpen).ok());
  EXPECT_TRUE(modes.set(ControlScope::kModel, "more", QueueMode::kPaused).ok());
}

TEST(ListJobs, OpenAndEndedJobsComeInOrderPageByPage) {
  World world;
  world.add_services();
  for (int i = 0; i < 6; ++i) {
    const auto item = world.submit_and_dispatch(job_spec("job-" + std::to_string(i), "once", 1));
    if (i % 2 == 0) world.generate(world.worker, item, 0, 1);
    world.tokenize();
  }
  protocol::ListJobs question;
  question.limit = 4;
  std::vector<std::string> keys;
  for (bool more = true; more;) {
    const auto page = list(world, question);
    ASSERT_FALSE(page.jobs.empty());
    for (const auto& job : page.jobs) {
      EXPECT_EQ(job.state, job.order % 2 == 1 ? JobState::kSucceeded : JobState::kRunning);
      keys.push_back(job.key);
    }
    question.after = page.jobs.back().order;
    more = page.more;
  }
  EXPECT_EQ(keys, (std::vector<std::string>{"job-0", "job-1", "job-2", "job-3", "job-4", "job-5"}));
}

TEST(ListJobs, FiltersByEveryCondition) {
  World world;
  world.add_services();
  auto spec = job_spec("mine");
  spec.tenant = "me", spec.group = "g";
  const JobId mine = world.submit(spec);
  world.submit(job_spec("other"));
  const auto count = [&](auto&& set) {
    protocol::ListJobs question;
    set(question.filter);
    return list(world, question).jobs.size();
  };
  EXPECT_EQ(count([](auto&) {}), 2u);
  EXPECT_EQ(count([](auto& f) { f.tenant = "me"; }), 1u);
  EXPECT_EQ(count([](auto& f) { f.tenant = ""; }), 1u);
  EXPECT_EQ(count([](auto& f) { f.group = "g"; }), 1u);
  EXPECT_EQ(count([](auto& f) { f.model = "gpt"; }), 0u);
  EXPECT_EQ(count([&](auto& f) { f.job = mine; }), 1u);
  EXPECT_EQ(count([](auto& f) { f.state = JobState::kQueued; }), 2u);
  EXPECT_EQ(count([](auto& f) { f.state = JobState::kRunning; }), 0u);
  EXPECT_EQ(count([](auto& f) { f.state = JobState::kSucceeded; }), 0u);
}

TEST(ListJobs, ALongSearchTakesSeveralTurnsAndIsBounded) {
  SchedulerOptions options;
  options.operator_jobs_per_turn = 1;  // ten looked at in a turn
  options.lists_max = 1;
  World world(options);
  for (int i = 0; i < 55; ++i) {
    auto spec = job_spec("job-" + std::to_string(i));
    spec.kind = protocol::JobKind::kConvert;
    spec.convert = protocol::ConvertSpec{"/a", "/b", "keep", 1};
    spec.model.clear(), spec.prompt.clear();
    spec.tenant = i == 54 ? "last" : "";
    world.submit(spec, false);
  }
  protocol::ListJobs question;
  question.filter.tenant = "last";
  world.send(world.client, question);
  world.send(world.client, question);
  EXPECT_EQ(world.only<protocol::Refused>(world.client).code, ErrorCode::kBusy);
  EXPECT_TRUE(world.take<protocol::JobList>(world.client).empty());
  world.advance(seconds(1));
  EXPECT_EQ(world.only<protocol::JobList>(world.client).jobs.size(), 1u);
  question.limit = limits::kJobsPerListMax + 1;
  world.send(world.client, question);
  EXPECT_EQ(world.only<protocol::Refused>(world.client).code, ErrorCode::kBadRequest);
}

TEST(ListJobs, TheLongestLinesFitAClientsFrame) {
  std::vector<protocol::JobSummary> ended(limits::kJobsPerListMax);
  uint64_t order = UINT64_MAX - 5'000;
  for (auto& job : ended) {
    job.order = order++;
    job.key.assign(limits::kKeyBytesMax, 'k');
    job.tenant.assign(limits::kTenantBytesMax, 't');
    job.group.assign(limits::kGroupBytesMax, 'g');
    job.model.assign(limits::kModelNameBytesMax, 'm');
    job.attempts = INT32_MAX;
    job.progress_done = job.progress_total = job.accepted_wall_ms = INT64_MAX;
    job.message = std::string(255, 'x') + "\u20ac and more";
  }
  const auto list = merged_list({}, std::move(ended), {0, {}, 0, limits::kJobsPerListMax});
  EXPECT_EQ(list.jobs.size(), limits::kJobsPerListMax);
  EXPECT_EQ(list.jobs[0].message, std::string(255, 'x'));
  EXPECT_LT(protocol::encode(list).size(), limits::kClientMessageBytesMax);
}

TEST(ListJobs, AJobThatEndsBetweenTheTwoHalvesIsListedOnce) {
  protocol::JobSummary open, ended;
  open.order = ended.order = 3;
  ended.state = JobState::kSucceeded;
  const auto list = merged_list({open}, {ended}, {0, {}, 0, 10});
  ASSERT_EQ(list.jobs.size(), 1u);
  EXPECT_EQ(list.jobs[0].state, JobState::kSucceeded);
}

TEST(DeadLetters, ADeadJobKeepsItsReasonsAndIsPutBackWithAllItsAttempts) {
  World world;
  world.add_services();
  const JobId dead = make_dead(world, "poison");
  world.send(world.client, protocol::GetJob{1, dead});
  auto result = world.only<protocol::JobStatus>(world.client).result;
  EXPECT_EQ(result.state, JobState::kDead);
  EXPECT_EQ(result.losses, std::vector<std::string>{"rank died"});
  world.send(world.client, protocol::Requeue{4, dead});
  world.send(world.client, protocol::Requeue{5, dead});  // repeated before the answer
  world.advance(milliseconds(100));
  const auto answers = world.take<protocol::JobStatus>(world.client);
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].result.job, dead);
  EXPECT_EQ(answers[0].result.state, JobState::kQueued);
  EXPECT_EQ(answers[0].result.attempts, 0);
  EXPECT_TRUE(answers[0].result.losses.empty());
  world.send(world.client, protocol::Requeue{6, dead});  // and after it
  EXPECT_EQ(world.only<protocol::JobStatus>(world.client).result.job, dead);
  EXPECT_EQ(world.service->jobs().size(), 1u);
  auto spec = job_spec("poison");
  spec.max_attempts = 1;
  EXPECT_EQ(world.submit(spec), dead);  // its key names it again, and followers attach
  world.tokenize();
  const auto item = world.dispatched(world.worker);
  EXPECT_EQ(item.job, dead);
  world.generate(world.worker, item, 0, 8);
  world.tokenize();
  result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.state, JobState::kSucceeded);
  EXPECT_EQ(result.text, reference_of(spec).text);
  EXPECT_EQ(result.attempts, 1);
  world.send(world.client, protocol::Requeue{7, dead});
  world.advance(milliseconds(100));
  EXPECT_EQ(world.only<protocol::Refused>(world.client).code, ErrorCode::kNotFound);
}

TEST(DeadLetters, TheKeyOfAJobThatWasPutBackDoesNotExpireWithItsDeath) {
  SchedulerOptions options;
  options.dead_ttl = seconds(30);
  World world(options);
  world.add_services();
  const JobId dead = [&] {
    auto spec = job_spec("poison");
    spec.max_attempts = 1, spec.result_ttl_ms = 1'000;
    const auto item = world.submit_and_dispatch(spec);
    world.send(world.worker, protocol::LeaseFailed{1, item.lease, ErrorCode::kInternal, "rank died", true});
    return item.job;
  }();
  control(world, ControlAction::kPause, ControlScope::kQueue);
  world.send(world.client, protocol::Requeue{4, dead});
  world.advance(seconds(60));
  auto spec = job_spec("poison");
  spec.max_attempts = 1, spec.result_ttl_ms = 1'000;
  const auto outcome = world.submit_refused(spec);
  EXPECT_TRUE(outcome.duplicate);
  EXPECT_EQ(outcome.job, dead);
}

TEST(DeadLetters, ReasonsAreCutAtACharacter) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("a"));
  const std::string reason = std::string(limits::kLossReasonBytesMax - 1, 'x') + "\u20ac";
  world.send(world.worker, protocol::LeaseFailed{1, item.lease, ErrorCode::kInternal, reason, true});
  world.send(world.client, protocol::GetJob{1, item.job});
  EXPECT_EQ(world.only<protocol::JobStatus>(world.client).result.losses,
            std::vector<std::string>{std::string(limits::kLossReasonBytesMax - 1, 'x')});
}

TEST(DeadLetters, ADrainingQueueTakesNothingBack) {
  World world;
  world.add_services();
  const JobId dead = make_dead(world, "poison");
  control(world, ControlAction::kDrain, ControlScope::kQueue);
  world.send(world.client, protocol::Requeue{4, dead});
  world.advance(milliseconds(100));
  EXPECT_EQ(world.only<protocol::Refused>(world.client).code, ErrorCode::kUnavailable);
  control(world, ControlAction::kResume, ControlScope::kQueue);
  world.send(world.client, protocol::Requeue{4, dead});
  world.advance(milliseconds(100));
  EXPECT_EQ(world.only<protocol::JobStatus>(world.client).result.state, JobState::kQueued);
}

TEST(DeadLetters, JobsThatArePutBackTogetherDoNotOverfillTheQueue) {
  SchedulerOptions options;
  options.open_jobs_max = 1;
  World world(options);
  world.add_services();
  const JobId first = make_dead(world, "first"), second = make_dead(world, "second");
  world.send(world.client, protocol::Requeue{4, first});
  world.send(world.client, protocol::Requeue{5, second});
  world.advance(milliseconds(100));
  EXPECT_EQ(world.only<protocol::JobStatus>(world.client).result.job, first);
  const auto refused = world.only<protocol::Refused>(world.client);
  EXPECT_EQ(refused.request, 5u);
  EXPECT_EQ(refused.code, ErrorCode::kBusy);
  EXPECT_EQ(world.service->jobs().size(), 1u);
}

TEST(Purge, ForgetsEndedJobsWithTheirKeysAndNeverOpenOnes) {
  World world;
  world.add_services();
  const JobId dead = make_dead(world, "poison", "g");
  auto open_spec = job_spec("open");
  open_spec.group = "g";
  const JobId open = world.submit(open_spec);
  world.send(world.client, protocol::Purge{1, {}});
  EXPECT_EQ(world.only<protocol::Refused>(world.client).code, ErrorCode::kBadRequest);
  protocol::JobFilter filter;
  filter.state = JobState::kQueued;
  world.send(world.client, protocol::Purge{2, filter});
  EXPECT_EQ(world.only<protocol::Refused>(world.client).code, ErrorCode::kBadRequest);
  filter.state.reset();
  filter.group = "g";
  world.send(world.client, protocol::Purge{3, filter});
  world.advance(milliseconds(100));
  EXPECT_EQ(world.only<protocol::Purged>(world.client), (protocol::Purged{3, 1}));
  world.send(world.client, protocol::GetJob{4, dead});
  world.advance(milliseconds(100));
  EXPECT_EQ(world.only<protocol::Refused>(world.client).code, ErrorCode::kNotFound);
  EXPECT_NE(world.submit(job_spec("poison", "another prompt")), dead);
  EXPECT_EQ(world.submit(open_spec), open);
  world.send(world.client, protocol::GetGroup{5, "", "g", false});
  const auto group = world.only<protocol::GroupStatus>(world.client);
  EXPECT_EQ(group.dead, 0);
  EXPECT_EQ(group.open, 1);
}

TEST(Backups, AreTheStoresToAnswer) {
  World world;
  world.send(world.client, protocol::Backup{8});
  world.advance(milliseconds(100));
  const auto refused = world.only<protocol::Refused>(world.client);
  EXPECT_EQ(refused.request, 8u);
  EXPECT_THAT(refused.message, HasSubstr("without a journal"));
}

TEST(StoreQuestions, AreBounded) {
  SchedulerOptions options;
  options.store_questions_max = 1;
  World world(options);
  world.send(world.client, protocol::GetJob{1, JobId::random()});
  world.send(world.client, protocol::GetJob{2, JobId::random()});
  const auto busy = world.only<protocol::Refused>(world.client);
  EXPECT_EQ(busy.request, 2u);
  EXPECT_EQ(busy.code, ErrorCode::kBusy);
  world.advance(milliseconds(100));
  EXPECT_EQ(world.only<protocol::Refused>(world.client).code, ErrorCode::kNotFound);
}

}  // namespace operator_requests_test
}  // namespace optserve::scheduler::testing
