// One tenant floods the queue with jobs and messages while three others send as usual. The clock is virtual, so the
// figures depend on order and admission, not on the machine.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace tenant_flood_test {
namespace {

constexpr milliseconds kStep{50};
constexpr int32_t kSlots = 64;
constexpr int32_t kNewTokens = 40;
constexpr double kCapacity = kSlots / (kNewTokens * 0.05);  // jobs a second: 32
constexpr int kWarmUp = 200, kSteps = 1'000;
constexpr int kPollsPerStep = 10;

struct Settings {
  double flood = 0;  // times the capacity
  std::string quotas;
};

struct Outcome {
  double p50 = 0, p99 = 0;  // seconds, of the jobs of the good
  size_t good = 0, good_refused = 0;
  size_t flood_accepted = 0, flood_refused = 0;
  size_t polls_served = 0, polls_refused = 0;
};

class Flooded {
 public:
  Flooded(Settings settings, uint64_t seed) : settings_(std::move(settings)), random_(seed), world_(options()) {
    world_.add_services();
    world_.add_worker(world_.worker, 2, kSlots);
  }
  Outcome run() {
    std::poisson_distribution<int> good(0.1 * kCapacity * 0.05), flood(settings_.flood * kCapacity * 0.05);
    for (step_ = 0; step_ < kSteps; ++step_) {
      for (int tenant = 0; tenant < 3; ++tenant) {
        for (int i = good(random_); i > 0; --i) submit("good-" + std::to_string(tenant), false);
      }
      if (settings_.flood > 0) {
        for (int i = flood(random_); i > 0; --i) submit("flood", true);
        poll();
      }
      work();
    }
    std::sort(seconds_.begin(), seconds_.end());
    outcome_.good = seconds_.size();
    if (!seconds_.empty()) {
      outcome_.p50 = seconds_[seconds_.size() / 2];
      outcome_.p99 = seconds_[seconds_.size() * 99 / 100];
    }
    return outcome_;
  }

 private:
  SchedulerOptions options() const {
    SchedulerOptions options;
    if (!settings_.quotas.empty()) {
      options.tenant_quotas =
          std::make_shared<const keys::TenantQuotas>(keys::parse_tenant_quotas(settings_.quotas).value());
    }
    return options;
  }
  void submit(const std::string& tenant, bool is_flood) {
    auto spec = ids_spec("k" + std::to_string(++keys_), tenant, kNewTokens);
    world_.send(world_.client, protocol::Submit{1, true, {spec}});
    const auto replies = world_.take<protocol::SubmitReply>(world_.client);
    const bool is_accepted = !replies.empty() && replies[0].outcomes.at(0).job;
    ++(is_flood ? (is_accepted ? outcome_.flood_accepted : outcome_.flood_refused)
                : (is_accepted ? accepted_ : outcome_.good_refused));
    if (is_accepted && !is_flood) submitted_[*replies[0].outcomes[0].job] = world_.clock.now();
  }
  void poll() {
    protocol::ListJobs list;
    list.request = 2;
    list.filter.tenant = "flood";
    for (int i = 0; i < kPollsPerStep; ++i) world_.send(world_.client, list);
    for (const auto& refused : world_.take<protocol::Refused>(world_.client)) {
      (refused.message.find("messages-per-minute") != std::string::npos ? outcome_.polls_refused
                                                                        : outcome_.polls_served)++;
    }
  }
  // Each running job makes one token a step.
  void work() {
    for (const auto& dispatch : world_.take<protocol::Dispatch>(world_.worker)) {
      for (const auto& item : dispatch.items) leases_[item.lease] = 0;
    }
    protocol::Tokens message;
    message.term = 1;
    for (auto& [lease, position] : leases_) {
      message.leases.push_back(lease);
      message.positions.push_back(position++);
      message.tokens.push_back(kFirstByteId + 'a');
      message.finished.push_back(position == kNewTokens ? 2 : 0);
    }
    std::erase_if(leases_, [](const auto& lease) { return lease.second == kNewTokens; });
    if (!message.leases.empty()) world_.send(world_.worker, std::move(message));
    world_.tokenize();
    world_.heartbeat(world_.tokenizer, 1);
    world_.heartbeat(world_.worker, 2, static_cast<uint64_t>(step_));
    world_.advance(kStep);
    outcome_.polls_served += world_.take<protocol::JobList>(world_.client).size();
    for (const auto& finished : world_.take<protocol::JobFinished>(world_.client)) {
      const auto found = submitted_.find(finished.result.job);
      if (found == submitted_.end()) continue;
      EXPECT_EQ(finished.result.state, protocol::JobState::kSucceeded);
      if (step_ >= kWarmUp) {
        seconds_.push_back(std::chrono::duration<double>(world_.clock.now() - found->second).count());
      }
      submitted_.erase(found);
    }
    std::erase_if(world_.sent, [&](const auto& item) { return item.to == world_.client; });
  }

  const Settings settings_;
  std::mt19937_64 random_;
  World world_;
  Outcome outcome_;
  std::map<uint64_t, uint32_t> leases_;  // with positions
  std::map<JobId, Instant> submitted_;   // of the good
  std::vector<double> seconds_;
  size_t keys_ = 0, accepted_ = 0;
  int step_ = 0;
};

Outcome flooded(const char* name, Settings settings, uint64_t seed) {
  const Outcome o = Flooded(std::move(settings), seed).run();
  std::printf(
      "  %-34s p50 %.2f s, p99 %.2f s of %zu, %zu refused; flood: %zu accepted, %zu refused, polls %zu of %zu\n", name,
      o.p50, o.p99, o.good, o.good_refused, o.flood_accepted, o.flood_refused, o.polls_served,
      o.polls_served + o.polls_refused);
  return o;
}

// Half of the slots stay free for the others. All jobs are equally long, so the jobs of a flood end together as they
// began, and whoever comes in between finds no slot until then.
constexpr const char* kQuotas = "tenant=flood running=32 jobs=200 tokens-per-minute=100000 messages-per-minute=3000\n";

TEST(TenantFlood, LeavesTheOthersTheirP99) {
  const uint64_t seed = std::random_device()();
  std::printf("seed %llu, capacity %.0f jobs/s, three tenants with a tenth of it each\n",
              static_cast<unsigned long long>(seed), kCapacity);
  const Outcome alone = flooded("alone", {}, seed);
  const Outcome held = flooded("flood of 10 times, with quotas", {10, kQuotas}, seed);
  const Outcome unheld = flooded("flood of 10 times, without", {10, ""}, seed);
  EXPECT_LE(held.p99, 1.2 * alone.p99);
  EXPECT_EQ(held.good_refused, 0u);
  EXPECT_GT(unheld.p99, 1.2 * alone.p99) << "the flood is one that is felt";
  // In 50 s it may send as much as its rate allows, and the minute that it may save; each job and each poll is a
  // message.
  constexpr double kMinutes = kSteps * 0.05 / 60;
  EXPECT_LE(static_cast<double>(held.flood_accepted), 100'000 / 44.0 * (1 + kMinutes) + 1);
  EXPECT_LE(static_cast<double>(held.flood_accepted + held.polls_served), 3'000 * (1 + kMinutes) + 1);
  EXPECT_GT(held.flood_accepted, 0u);
  EXPECT_GT(held.polls_refused, 0u);
}

}  // namespace
}  // namespace tenant_flood_test
}  // namespace optserve::scheduler::testing
