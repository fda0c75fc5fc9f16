#include "simulation/workload.h"

#include <algorithm>
#include <string>

namespace optserve::simulation {
namespace {

protocol::JobSpec random_job(Environment& env, const std::string& key) {
  Dice& dice = env.dice;
  static constexpr const char* kWords[] = {"once ", "the ", "end ", "story ", "d\u00e9j\u00e0 ", "\U0001F600 "};
  protocol::JobSpec spec;
  spec.key = key;
  spec.model = env.model.info().name;
  if (dice.chance(0.5)) spec.tenant = dice.chance(0.5) ? "alice" : "bob";
  const auto length = static_cast<size_t>(dice.heavy_tail(4, 700));
  if (dice.chance(0.7)) {
    while (spec.prompt.size() < length) spec.prompt += kWords[dice.below(std::size(kWords))];
  } else {
    spec.prompt_ids = {kEndOfText};
    while (spec.prompt_ids.size() < std::min<size_t>(length, 350)) {
      spec.prompt_ids.push_back(static_cast<TokenId>(dice.between(4, env.model.info().vocab - 1)));
    }
  }
  spec.max_new_tokens = static_cast<int32_t>(dice.between(1, 100));
  spec.sampling.seed = dice.number();
  spec.sampling.ignore_eos = dice.chance(0.2);
  spec.prompt_logprobs = dice.chance(0.1);
  if (dice.chance(0.3)) {
    spec.stop = {"zz",
                 std::string(1, static_cast<char>(dice.between('a', 'z'))) + static_cast<char>(dice.between('a', 'z'))};
    if (dice.chance(0.5)) spec.stop.push_back("the end");
  }
  spec.priority = dice.chance(0.3) ? static_cast<int32_t>(dice.below(10)) : 0;
  spec.max_attempts = dice.chance(0.3) ? static_cast<int32_t>(dice.between(1, 3)) : 10;
  spec.ttl_ms = dice.chance(0.2) ? dice.heavy_tail(1, 20'000) : 300'000;
  spec.result_ttl_ms = dice.chance(0.1) ? dice.between(1'000, 20'000) : 3'600'000;
  if (dice.chance(0.15)) spec.delay_ms = dice.heavy_tail(1, 15'000);
  if (dice.chance(0.15)) spec.queue_ms = dice.heavy_tail(10, 20'000);
  if (dice.chance(0.15)) spec.run_ms = dice.heavy_tail(10, 20'000);
  if (dice.chance(0.3)) {
    spec.group = kGroups[dice.below(std::size(kGroups))];
    spec.result_ttl_ms = 3'600'000;  // so that what is counted does not expire within a run
  }
  return spec;
}

// Work of all tenants with the same priority, so that they share a queue.
void join_rush(Dice& dice, protocol::JobSpec& spec) {
  spec.tenant = kTenants[dice.below(std::size(kTenants))];
  if (dice.chance(0.9)) spec.priority = 0;
}

}  // namespace

std::vector<std::vector<PlannedJob>> plan_jobs(Environment& env) {
  Dice& dice = env.dice;
  std::vector<std::vector<PlannedJob>> plans(env.settings.clients);
  // Arrivals: a few rushes of several tenants, bursts, or evenly spread.
  const uint64_t rush = env.settings.rushes ? 8 + dice.below(env.settings.jobs) : 0;
  const bool bursts = dice.chance(0.5);
  Instant at = env.now();
  const Duration time = std::max<Duration>(env.settings.fault_time, seconds(10));
  for (uint64_t i = 0; i < env.settings.jobs; ++i) {
    if (rush > 0) {
      if (i % rush == rush - 1) at += dice.between(Duration::zero(), time / 2);
    } else if (!bursts || dice.chance(0.1)) {
      at += dice.between(Duration::zero(), time * 2 / static_cast<int64_t>(env.settings.jobs));
    }
    PlannedJob job;
    job.spec = random_job(env, "job-" + std::to_string(i));
    if (rush > 0) join_rush(dice, job.spec);
    job.submit_at = at;
    if (dice.chance(0.1)) job.cancel_at = at + dice.heavy_tail(milliseconds(1), seconds(10));
    std::vector<PlannedJob>& owner = plans[dice.below(plans.size())];
    if (dice.chance(0.15)) {  // someone else submits the same, at about the same time or later
      PlannedJob twin = job;
      twin.cancel_at = Instant::max();
      twin.submit_at += dice.chance(0.5) ? dice.between(Duration::zero(), milliseconds(5))
                                         : dice.heavy_tail(milliseconds(1), seconds(20));
      if (dice.chance(0.3)) {
        twin.spec.max_new_tokens += 1;
        twin.may_conflict = job.may_conflict = true;
      }
      plans[dice.below(plans.size())].push_back(std::move(twin));
    }
    owner.push_back(std::move(job));
  }
  return plans;
}

protocol::JobSpec large_job(const Environment& env, uint64_t index) {
  const uint64_t x = mix(env.settings.seed, index);
  protocol::JobSpec spec;
  spec.key = "j" + std::to_string(index);
  spec.model = env.model.info().name;
  spec.prompt_ids = {kEndOfText};
  for (uint64_t i = 0; i < 4 + x % 8; ++i) spec.prompt_ids.push_back(static_cast<TokenId>(4 + (x >> i) % 250));
  spec.max_new_tokens = static_cast<int32_t>(2 + (x >> 20) % 12);
  spec.sampling.seed = x;
  spec.max_attempts = 10;
  spec.ttl_ms = 3'600'000;
  spec.result_ttl_ms = env.settings.result_ttl_ms;
  return spec;
}

}  // namespace optserve::simulation
