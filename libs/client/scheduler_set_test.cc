// Which scheduler gets which job and which questions, without a network.
#include "client/scheduler_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "client/scheduler_choice.h"
#include "client/session_test_rig.h"

namespace optserve::client {
namespace scheduler_set_test {

using ::testing::HasSubstr;

// A scheduler that accepts at once whatever it gets.
struct Node {
  bool down = false;          // not connected: what is sent is undeliverable
  bool mute = false;          // connected and silent; what is sent to it is lost
  bool drop_replies = false;  // does what it is asked and its answers are lost
  std::optional<ErrorCode> refuses;
  int64_t retry_after_ms = 0;
  std::map<std::string, JobId> jobs;  // by key
  std::vector<Message> got;

  const JobId* find(const JobId& id) const {
    for (const auto& [key, job] : jobs) {
      if (job == id) return &job;
    }
    return nullptr;
  }
  std::optional<Message> answer(const Message& message) {
    got.push_back(message);
    if (const auto* ping = std::get_if<Ping>(&message)) return Pong{ping->number, 1};
    if (const auto* submit = std::get_if<Submit>(&message)) return accept(*submit);
    if (const auto* get = std::get_if<protocol::GetJob>(&message)) return status(get->request, get->job);
    if (const auto* cancel = std::get_if<protocol::Cancel>(&message)) return status(cancel->request, cancel->job);
    if (const auto* get = std::get_if<protocol::GetStatus>(&message)) {
      protocol::SystemStatus status;
      status.request = get->request;
      return status;
    }
    return std::nullopt;
  }
  Message accept(const Submit& submit) {
    SubmitReply reply{submit.request, {}};
    for (const JobSpec& spec : submit.jobs) {
      protocol::SubmitOutcome& outcome = reply.outcomes.emplace_back();
      if (refuses) {
        outcome.error = refuses;
        outcome.retry_after_ms = retry_after_ms;
        continue;
      }
      const auto [found, is_new] = jobs.try_emplace(spec.key, Id128::random());
      outcome.job = found->second;
      outcome.duplicate = !is_new;
    }
    return reply;
  }
  Message status(uint64_t request, const JobId& id) const {
    if (find(id) == nullptr) return Refused{request, ErrorCode::kNotFound, "no such job"};
    protocol::JobStatus status{request, {}};
    status.result.job = id;
    return status;
  }
  template <class T>
  size_t count() const {
    return static_cast<size_t>(
        std::count_if(got.begin(), got.end(), [](const Message& m) { return std::holds_alternative<T>(m); }));
  }
};

struct SetRig : ClockedRig<SetRig> {
  explicit SetRig(size_t count, uint64_t seed = 1) : endpoints(names(count)), set(endpoints, options(seed)) {
    nodes.resize(count);
  }
  static std::vector<std::string> names(size_t count) {
    std::vector<std::string> result;
    for (size_t i = 0; i < count; ++i) result.push_back("tcp://s" + std::to_string(i) + ":1");
    return result;
  }
  static SessionOptions options(uint64_t seed) {
    SessionOptions options;
    options.seed = seed;
    return options;
  }
  void on_tick() { set.on_tick(clock.now(), out); }
  void collect() {
    while (!out.empty()) {
      (void)out.take_reconnects();
      for (auto& item : out.take()) {
        Node& node = nodes.at(static_cast<size_t>(item.to.port));
        if (node.down) {
          set.on_undeliverable(item.to, std::move(item.message), false, clock.now(), out);
        } else if (!node.mute) {
          const auto answer = node.answer(item.message);
          if (answer && !node.drop_replies) set.on_message(item.to, *answer, clock.now(), out);
        }
      }
    }
  }
  std::shared_ptr<std::optional<Result<Outcomes>>> submit(std::vector<JobSpec> jobs) {
    const auto outcomes = std::make_shared<std::optional<Result<Outcomes>>>();
    set.submit(std::move(jobs), {}, clock.now() + seconds(10), turn(), [outcomes](Submission answered) {
      EXPECT_FALSE(*outcomes) << "answered twice";
      *outcomes = std::move(answered.outcomes);
    });
    collect();
    return outcomes;
  }
  std::optional<Result<JobResult>> get(const JobId& job, Duration wait) {
    std::optional<Result<JobResult>> result;
    set.ask_job(job, protocol::GetJob{0, job}, clock.now() + wait, turn(),
                [&](Result<JobResult> answer, const Turn&) { result = std::move(answer); });
    collect();
    for (Duration done{}; done <= wait && !result; done += milliseconds(50)) pass(milliseconds(50));
    return result;
  }
  // A job whose first choice is this scheduler.
  JobSpec job_for(size_t scheduler) {
    JobSpec job = Rig::good_job();
    do {
      job.key = std::to_string(++keys);
    } while (scheduler_order("", job.key, endpoints)[0] != scheduler);
    return job;
  }
  size_t second_choice(const JobSpec& job) const { return scheduler_order("", job.key, endpoints)[1]; }

  std::vector<std::string> endpoints;
  SchedulerSet set;
  std::vector<Node> nodes;
  int keys = 0;
};

TEST(SeveralSchedulers, ABulkIsSplitByKeyAndAnsweredInOrder) {
  SetRig rig(3);
  rig.pass(milliseconds(200));
  std::vector<JobSpec> jobs;
  for (size_t i = 0; i < 30; ++i) jobs.push_back(rig.job_for(i % 3));
  jobs[7].priority = 99;
  const auto outcomes = rig.submit(jobs);
  ASSERT_TRUE(*outcomes && (*outcomes)->ok());
  for (size_t i = 0; i < 30; ++i) {
    const auto& outcome = (*outcomes)->value()[i];
    if (i == 7) {
      EXPECT_EQ(outcome.error, ErrorCode::kBadRequest);
    } else {
      EXPECT_EQ(outcome.job, rig.nodes[i % 3].jobs.at(jobs[i].key));
    }
  }
  for (const Node& node : rig.nodes) EXPECT_EQ(node.count<Submit>(), 1u);
}

TEST(SeveralSchedulers, ARepeatedKeyFindsTheEarlierJobFromAnyClient) {
  SetRig first(4);
  first.pass(milliseconds(200));
  std::vector<JobSpec> jobs;
  for (size_t i = 0; i < 40; ++i) jobs.push_back(first.job_for(i % 4));
  const auto before = first.submit(jobs);
  SetRig second(4, 99);
  second.nodes = first.nodes;
  second.pass(milliseconds(200));
  const auto after = second.submit(jobs);
  for (size_t i = 0; i < 40; ++i) {
    EXPECT_TRUE((*after)->value()[i].duplicate);
    EXPECT_EQ((*after)->value()[i].job, (*before)->value()[i].job);
  }
}

TEST(SeveralSchedulers, TheNextTakesWhatTheFirstWasNeverSent) {
  SetRig rig(3);
  rig.nodes[1].down = true;
  const JobSpec job = rig.job_for(1);
  const auto outcomes = rig.submit({job});  // before it is known who can be reached
  rig.pass(milliseconds(500));
  EXPECT_FALSE(*outcomes) << "a connection may take a moment";
  rig.pass(seconds(2));
  ASSERT_TRUE(*outcomes && (*outcomes)->ok());
  EXPECT_TRUE(rig.nodes[rig.second_choice(job)].jobs.contains(job.key));
  const JobSpec later = rig.job_for(1);
  const auto at_once = rig.submit({later});
  ASSERT_TRUE(*at_once && (*at_once)->ok());
  EXPECT_TRUE(rig.nodes[rig.second_choice(later)].jobs.contains(later.key));
  EXPECT_TRUE(rig.nodes[1].jobs.empty());
}

TEST(SeveralSchedulers, WhatMayHaveArrivedStays) {
  SetRig rig(3);
  rig.pass(milliseconds(200));
  rig.nodes[1].drop_replies = true;
  const JobSpec job = rig.job_for(1);
  const auto outcomes = rig.submit({job});
  rig.nodes[1].down = true;
  rig.pass(seconds(8));
  EXPECT_FALSE(*outcomes);
  rig.nodes[1].down = rig.nodes[1].drop_replies = false;
  rig.pass(milliseconds(1'500));
  ASSERT_TRUE(*outcomes && (*outcomes)->ok());
  EXPECT_TRUE((*outcomes)->value()[0].duplicate);
  EXPECT_TRUE(rig.nodes[0].jobs.empty() && rig.nodes[2].jobs.empty());
}

TEST(SeveralSchedulers, OfThoseThatAreAllDownTheFirstToComeBackGetsTheJob) {
  SetRig rig(2);
  for (Node& node : rig.nodes) node.down = true;
  rig.pass(seconds(3));
  const JobSpec job = rig.job_for(0);
  const auto outcomes = rig.submit({job});
  rig.pass(seconds(2));
  EXPECT_FALSE(*outcomes);
  rig.nodes[1].down = false;
  rig.pass(seconds(2));
  ASSERT_TRUE(*outcomes && (*outcomes)->ok());
  EXPECT_TRUE(rig.nodes[1].jobs.contains(job.key));
}

TEST(SeveralSchedulers, ARefusedJobIsOfferedToTheNextAndWaitsAtTheLast) {
  for (const ErrorCode code : {ErrorCode::kBusy, ErrorCode::kStorageFull, ErrorCode::kUnavailable}) {
    SetRig rig(3);
    rig.pass(milliseconds(200));
    rig.nodes[0].refuses = code;
    std::vector<JobSpec> jobs;
    for (size_t i = 0; i < 12; ++i) jobs.push_back(rig.job_for(i % 3));
    const auto outcomes = rig.submit(jobs);
    ASSERT_TRUE(*outcomes && (*outcomes)->ok());
    for (const auto& outcome : (*outcomes)->value()) EXPECT_TRUE(outcome.job);
    EXPECT_EQ(rig.nodes[1].jobs.size() + rig.nodes[2].jobs.size(), 12u);
    EXPECT_EQ(rig.nodes[0].count<Submit>(), 1u);
  }
}

TEST(SeveralSchedulers, WhenAllAreBusyTheJobWaitsAsLongAsItIsTold) {
  SetRig rig(2);
  rig.pass(milliseconds(200));
  for (Node& node : rig.nodes) node.refuses = ErrorCode::kBusy, node.retry_after_ms = 2'000;
  const auto outcomes = rig.submit({rig.job_for(0)});
  rig.pass(milliseconds(1'900));
  EXPECT_EQ(rig.nodes[0].count<Submit>(), 1u);
  EXPECT_EQ(rig.nodes[1].count<Submit>(), 1u);
  for (Node& node : rig.nodes) node.refuses.reset();
  rig.pass(milliseconds(2'000));
  ASSERT_TRUE(*outcomes && (*outcomes)->ok());
  EXPECT_TRUE((*outcomes)->value()[0].job);
}

TEST(SeveralSchedulers, WhatWasHandedOverTwiceIsNotOfferedToAnother) {
  SetRig rig(2);
  rig.pass(milliseconds(200));
  rig.nodes[0].drop_replies = true;
  const JobSpec job = rig.job_for(0);
  const auto outcomes = rig.submit({job});
  rig.pass(milliseconds(100));
  rig.nodes[0].jobs.clear();  // as if the first copy were still on its way
  rig.nodes[0].drop_replies = false;
  rig.nodes[0].refuses = ErrorCode::kBusy;
  rig.pass(seconds(9));
  EXPECT_TRUE(rig.nodes[1].jobs.empty());
  rig.pass(seconds(2));
  ASSERT_TRUE(*outcomes && (*outcomes)->ok());
  EXPECT_EQ((*outcomes)->value()[0].error, ErrorCode::kBusy);
}

TEST(SeveralSchedulers, AJobOfThisClientIsAskedForWhereItIs) {
  SetRig rig(3);
  rig.pass(milliseconds(200));
  const auto outcomes = rig.submit({rig.job_for(2)});
  const JobId id = *(*outcomes)->value()[0].job;
  EXPECT_TRUE(rig.get(id, seconds(1))->ok());
  EXPECT_EQ(rig.nodes[0].count<protocol::GetJob>() + rig.nodes[1].count<protocol::GetJob>(), 0u);
}

TEST(SeveralSchedulers, AnUnknownJobIsAskedForEverywhereOnce) {
  SetRig rig(3);
  rig.pass(milliseconds(200));
  const JobId id = Id128::random();
  rig.nodes[1].jobs["k"] = id;
  EXPECT_TRUE(rig.get(id, seconds(1))->ok());
  EXPECT_TRUE(rig.get(id, seconds(1))->ok());
  EXPECT_EQ(rig.nodes[0].count<protocol::GetJob>(), 1u);
  EXPECT_EQ(rig.nodes[1].count<protocol::GetJob>(), 2u);
  EXPECT_EQ(rig.get(Id128::random(), seconds(1))->refusal().code, ErrorCode::kNotFound);
}

TEST(SeveralSchedulers, AJobThatMayBeWhereNobodyAnswersIsNotCalledUnknown) {
  SetRig rig(3);
  rig.pass(milliseconds(200));
  rig.nodes[2].mute = true;
  const auto asked = rig.get(Id128::random(), seconds(3));
  ASSERT_TRUE(asked && !asked->ok());
  EXPECT_EQ(asked->refusal().code, ErrorCode::kUnavailable);
  EXPECT_THAT(asked->refusal().message, HasSubstr("not known to tcp://s0:1, tcp://s1:1; no answer from tcp://s2:1"));
}

TEST(SeveralSchedulers, OneThatIsDownIsNotWaitedForOnceAnotherHasAnswered) {
  SetRig rig(2);
  rig.nodes[1].down = true;
  rig.pass(seconds(2));
  std::optional<Answers<Message>> answers;
  rig.set.ask_all([](const std::string&) { return protocol::GetStatus{}; }, rig.clock.now() + seconds(10), rig.turn(),
                  [&](Answers<Message> all) { answers = std::move(all); });
  rig.pass(milliseconds(300));
  ASSERT_TRUE(answers);
  EXPECT_EQ(answers->at(0).endpoint, "tcp://s0:1");
  EXPECT_TRUE(answers->at(0).answer.ok());
  EXPECT_EQ(answers->at(1).answer.refusal().code, ErrorCode::kUnavailable);
  EXPECT_THAT(answers->at(1).answer.refusal().message, HasSubstr("tcp://s1:1"));
}

TEST(JobHomes, ForgetTheOldest) {
  JobHomes homes(2);
  const JobId a = Id128::random(), b = Id128::random(), c = Id128::random();
  homes.remember(a, 0);
  homes.remember(b, 1);
  homes.remember(b, 2);
  homes.remember(c, 3);
  EXPECT_EQ(homes.find(a), std::nullopt);
  EXPECT_EQ(homes.find(b), 2u);
  EXPECT_EQ(homes.find(c), 3u);
}

// While a client lives, none of its keys is accepted by two schedulers, and what it reports as accepted is there.
TEST(SeveralSchedulers, NoKeyIsAcceptedTwiceWhateverFails) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  size_t accepted = 0, submitted = 0;
  for (int run = 0; run < 100; ++run) {
    SetRig rig(2 + random() % 3, random());
    std::vector<std::pair<std::string, std::shared_ptr<std::optional<Result<Outcomes>>>>> open;
    for (int step = 0; step < 400; ++step) {
      for (Node& node : rig.nodes) {
        if (random() % 20 == 0) node.down = random() % 3 == 0;
        if (random() % 20 == 0) node.mute = random() % 4 == 0;
        if (random() % 20 == 0) node.drop_replies = random() % 4 == 0;
        if (random() % 20 == 0) node.refuses = random() % 2 == 0 ? std::optional(ErrorCode::kBusy) : std::nullopt;
        node.retry_after_ms = static_cast<int64_t>(random() % 2'000);
      }
      if (step < 200 && random() % 4 == 0) {
        const JobSpec job = rig.job_for(random() % rig.nodes.size());
        open.emplace_back(job.key, rig.submit({job}));
      }
      rig.pass(milliseconds(100));
    }
    for (const auto& [key, outcomes] : open) {
      ++submitted;
      size_t places = 0;
      for (const Node& node : rig.nodes) places += node.jobs.contains(key);
      ASSERT_LE(places, 1u) << "key " << key;
      ASSERT_TRUE(*outcomes) << "key " << key;
      if (!(*outcomes)->ok() || !(*outcomes)->value()[0].job) continue;
      ++accepted;
      ASSERT_EQ(places, 1u) << "key " << key;
    }
  }
  EXPECT_GT(accepted, submitted / 2);
}

}  // namespace scheduler_set_test
}  // namespace optserve::client
