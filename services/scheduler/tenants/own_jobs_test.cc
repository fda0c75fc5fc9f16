// A tenant sees and touches its own jobs only: every message of clients, with a job of another tenant in every state
// that a job can be in. The answer must not differ from the answer about a job that never existed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>

#include "protocol/codec.h"
#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace own_jobs_test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kGroup = "secret-group";
constexpr const char* kPrompt = "a secret prompt";
constexpr const char* kKey = "secret-key";

// A job of tenant a, in one state.
enum class State { kDelayed, kEncoding, kRunning, kEnded, kEndedLongAgo, kDead, kConversion };
constexpr State kStates[] = {State::kDelayed,      State::kEncoding, State::kRunning,   State::kEnded,
                             State::kEndedLongAgo, State::kDead,     State::kConversion};

struct Target {
  JobId job;
  std::string group, key;
};

// What a message asks of a job, a key or a group.
struct Way {
  std::string message;
  std::function<protocol::Message(const Target&)> make;
};

protocol::ListJobs list_of(const std::function<void(protocol::JobFilter&)>& fill) {
  protocol::ListJobs list;
  list.request = 7;
  list.limit = 100;
  fill(list.filter);
  return list;
}

const std::vector<Way>& ways() {
  static const std::vector<Way> kWays = {
      {"Attach",
       [](const Target& t) {
         return protocol::Attach{7, t.job, 0, 0};
       }},
      {"Cancel",
       [](const Target& t) {
         return protocol::Cancel{7, t.job};
       }},
      {"GetJob",
       [](const Target& t) {
         return protocol::GetJob{7, t.job};
       }},
      {"Credit", [](const Target&) { return protocol::Credit{}; }},
      {"ListJobs", [](const Target& t) { return list_of([&](auto& filter) { filter.job = t.job; }); }},
      {"ListJobs", [](const Target& t) { return list_of([&](auto& filter) { filter.group = t.group; }); }},
      {"ListJobs", [](const Target&) { return list_of([](auto& filter) { filter.model = "opt"; }); }},
      {"ListJobs", [](const Target&) { return list_of([](auto&) {}); }},
      {"ListJobs", [](const Target&) { return list_of([](auto& filter) { filter.tenant = "a"; }); }},
      {"GetGroup",
       [](const Target& t) {
         return protocol::GetGroup{7, "", t.group, false};
       }},
      {"GetGroup",
       [](const Target& t) {
         return protocol::GetGroup{7, "", t.group, true};
       }},
      {"GetGroup",
       [](const Target& t) {
         return protocol::GetGroup{7, "a", t.group, true};
       }},
      {"Requeue",
       [](const Target& t) {
         return protocol::Requeue{7, t.job};
       }},
      {"Purge",
       [](const Target& t) {
         protocol::Purge purge;
         purge.request = 7;
         purge.filter.job = t.job;
         return purge;
       }},
      {"Submit",
       [](const Target& t) {
         protocol::JobSpec spec = ids_spec(t.key, "a");
         return protocol::Submit{7, true, {std::move(spec)}};
       }},
      {"GetStatus", [](const Target&) { return protocol::GetStatus{7}; }},
      {"Control",
       [](const Target&) {
         return protocol::Control{7, protocol::ControlAction::kPause, protocol::ControlScope::kQueue, ""};
       }},
      {"Backup", [](const Target&) { return protocol::Backup{7}; }},
  };
  return kWays;
}

class Owned {
 public:
  Owned() : world(options()) {
    world.service->set_key_of([this](const World::Peer& peer) -> const keys::AllowedKey* {
      const auto found = keys_.find(peer);
      return found != keys_.end() ? &found->second : nullptr;
    });
    give(world.tokenizer, "tokenizer=*");
    give(world.worker, "worker=opt");
    give(owner, "client=a operator");
    give(other, "client=b");
    world.add_services();
  }
  Target make(State state) {
    protocol::JobSpec spec = job_spec(kKey, kPrompt);
    spec.tenant = "a";
    spec.group = kGroup;
    spec.max_attempts = 1;
    if (state == State::kDelayed) spec.delay_ms = 60'000;
    if (state == State::kConversion) {
      spec = {};
      spec.key = kKey, spec.tenant = "a", spec.group = kGroup;
      spec.kind = protocol::JobKind::kConvert;
      spec.convert.emplace();
      spec.convert->dtype = "keep";
      spec.convert->source = "/secret/in";
      spec.convert->destination = "/secret/out";
    }
    world.send(owner, protocol::Submit{1, false, {spec}});
    const auto outcome = world.only<protocol::SubmitReply>(owner).outcomes.at(0);
    EXPECT_TRUE(outcome.job) << outcome.message;
    bring_to(state, outcome.job.value_or(JobId{}));
    return {outcome.job.value_or(JobId{}), kGroup, kKey};
  }
  // All that `from` is told, as bytes.
  std::string told(const World::Peer& from, protocol::Message message) {
    world.send(from, std::move(message));
    world.advance(milliseconds(200));
    std::string bytes;
    std::erase_if(world.sent, [&](const transport::Outgoing& item) {
      if (item.to != from) return false;
      bytes += protocol::encode(item.message);
      return true;
    });
    return bytes;
  }
  protocol::JobResult seen_by_its_owner(const JobId& job) {
    world.send(owner, protocol::GetJob{9, job});
    world.advance(milliseconds(200));
    return world.only<protocol::JobStatus>(owner).result;
  }

  World world;
  const World::Peer owner{0, "owner"}, other{0, "other"};

 private:
  static SchedulerOptions options() {
    SchedulerOptions options;
    options.recent_bytes_max = 1;  // results are in the store alone, but for the newest
    return options;
  }
  void give(const World::Peer& peer, const std::string& rights) {
    keys_[peer] = keys::parse_allowed_key(keys::PublicKey{}.text() + " name=x " + rights).value();
  }
  void bring_to(State state, const JobId& job) {
    if (state == State::kDelayed || state == State::kEncoding || state == State::kConversion) return;
    world.tokenize();
    const auto dispatches = world.take<protocol::Dispatch>(world.worker);
    if (state == State::kRunning) return;
    ASSERT_EQ(dispatches.size(), 1u);
    if (state == State::kDead) {
      world.send(world.worker,
                 protocol::LeaseFailed{1, dispatches[0].items.at(0).lease, ErrorCode::kInternal, "rank died", true});
    } else {
      world.send(owner, protocol::Cancel{2, job});
    }
    if (state == State::kEndedLongAgo) {
      world.send(owner, protocol::Submit{3, false, {ids_spec("next", "a")}});
      const JobId next = *world.take<protocol::SubmitReply>(owner).at(0).outcomes.at(0).job;
      world.send(owner, protocol::Cancel{4, next});
    }
    world.advance(milliseconds(200));
    world.take<protocol::JobStatus>(owner);
  }
  std::map<World::Peer, keys::AllowedKey> keys_;
};

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size()) {
    text.replace(at, what.size(), with);
  }
  return text;
}

std::string raw(const JobId& job) { return {job.bytes.begin(), job.bytes.end()}; }

TEST(OwnJobs, WhateverATenantAsksOfAnothersJobItIsToldWhatItIsToldOfOneThatNeverWas) {
  for (const State state : kStates) {
    for (size_t i = 0; i < ways().size(); ++i) {
      const Way& way = ways()[i];
      SCOPED_TRACE("state " + std::to_string(static_cast<int>(state)) + ", way " + std::to_string(i) + ", " +
                   way.message);
      Owned owned;
      const Target target = owned.make(state);
      Target never{JobId{}, "other-group0", "other-key0"};
      never.job.bytes.fill(9);
      const auto before = owned.seen_by_its_owner(target.job);
      const std::string of_never = owned.told(owned.other, way.make(never));
      const std::string of_target = owned.told(owned.other, way.make(target));
      for (const std::string secret : {kGroup, kKey, kPrompt, "/secret/"}) {
        EXPECT_THAT(of_target, Not(HasSubstr(secret)));
      }
      // The state of the system, which changes meanwhile and names no job.
      if (way.message == "GetStatus") continue;
      EXPECT_EQ(replaced(replaced(of_never, never.job.hex(), target.job.hex()), raw(never.job), raw(target.job)),
                of_target);
      const auto after = owned.seen_by_its_owner(target.job);
      EXPECT_EQ(after.state, before.state);
      EXPECT_EQ(after.error, before.error);
    }
  }
}

// After a refusal nothing follows later: no piece of text and no end.
TEST(OwnJobs, ARefusedFollowerHearsNothingOfTheJobLater) {
  Owned owned;
  World& world = owned.world;
  world.send(owned.owner, protocol::Submit{1, false, {ids_spec("streams", "a", 4)}});
  const JobId job = *world.only<protocol::SubmitReply>(owned.owner).outcomes.at(0).job;
  owned.told(owned.other, protocol::Attach{7, job, 0, 0});
  owned.told(owned.other, protocol::Credit{});
  const auto item = world.dispatched(world.worker);
  world.generate(world.worker, item, 0, 4);
  world.tokenize();
  world.advance(seconds(1));
  EXPECT_EQ(owned.seen_by_its_owner(job).state, protocol::JobState::kSucceeded);
  for (const auto& sent : world.sent) EXPECT_NE(sent.to, owned.other) << protocol::message_name(sent.message);
}

// A new message of the protocol needs a line above.
TEST(OwnJobs, EveryMessageOfClientsIsTried) {
  std::set<std::string> tried, all;
  for (const Way& way : ways()) tried.insert(way.message);
  const auto needs = [&]<size_t... I>(std::index_sequence<I...>) {
    const auto add = [&](const protocol::Message& message) {
      const Need need = need_of(message);
      if (need == Need::kTenant || need == Need::kSight || need == Need::kOperator) {
        all.emplace(protocol::message_name(message));
      }
    };
    (add(protocol::Message(std::variant_alternative_t<I, protocol::detail::Messages::Type>{})), ...);
  };
  needs(std::make_index_sequence<protocol::kMessageKinds>{});
  EXPECT_EQ(tried, all);
}

// The owner and an operator do get answers, so the table above checks something.
TEST(OwnJobs, TheOwnerIsTold) {
  for (const State state : kStates) {
    Owned owned;
    const Target target = owned.make(state);
    EXPECT_EQ(owned.seen_by_its_owner(target.job).key, kKey);
    EXPECT_THAT(owned.told(owned.owner, list_of([&](auto& filter) { filter.job = target.job; })), HasSubstr(kKey));
  }
}

// Without keys, names prove nothing, so the ports are for this machine only.
TEST(OwnJobs, WithoutKeysEverybodyIsEverybody) {
  World world;
  world.add_services();
  const World::Peer anyone{0, "anyone"};
  const JobId job = world.submit(ids_spec("1", "a"));
  world.send(anyone, protocol::GetJob{1, job});
  EXPECT_EQ(world.only<protocol::JobStatus>(anyone).result.tenant, "a");
}

}  // namespace
}  // namespace own_jobs_test
}  // namespace optserve::scheduler::testing
