// The whole system in one thread: fresh seeds, seeds that once found something, the same run twice, many workers, and
// bugs planted on purpose.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "base/log.h"
#include "simulation/world.h"
#include "support/sanitized.h"

namespace optserve::simulation {
namespace simulation_test {

using test_support::kSanitized;

// Each of these broke an invariant once.
constexpr uint64_t kFoundSomething[] = {971, 1982, 2151, 3372};
constexpr uint64_t kPlantSeeds = 300;  // how many worlds a planted bug may take to be found
constexpr seconds kFreshTime{kSanitized ? 6 : 12};

class Simulation : public ::testing::Test {
 protected:
  Simulation() { init_logging("simulation_test", "off", LogFormat::kText); }
};

void expect_clean(const Outcome& outcome) {
  if (!outcome.broken) return;
  ADD_FAILURE() << outcome.trace << "seed " << outcome.seed << " breaks I" << static_cast<int>(*outcome.broken) << ": "
                << outcome.what << "\n  simulation --first " << outcome.seed;
}

TEST_F(Simulation, HoldsItsInvariantsInFreshWorlds) {
  const uint64_t first = std::random_device{}();
  const auto end = std::chrono::steady_clock::now() + kFreshTime;
  uint64_t seeds = 0;
  for (; !HasFailure() && std::chrono::steady_clock::now() < end; ++seeds) {
    expect_clean(run_world(small_world(first + seeds)));
  }
  std::printf("%lu seeds from %lu\n", static_cast<unsigned long>(seeds), static_cast<unsigned long>(first));
  EXPECT_GT(seeds, 0u);
}

TEST_F(Simulation, HoldsThemWhereTheyWereBrokenOnce) {
  for (const uint64_t seed : kFoundSomething) expect_clean(run_world(small_world(seed)));
}

TEST_F(Simulation, RunsTheSameTwice) {
  const uint64_t first = std::random_device{}();
  for (uint64_t seed = first; seed < first + (kSanitized ? 3 : 10); ++seed) {
    const Outcome once = run_world(small_world(seed)), again = run_world(small_world(seed));
    EXPECT_EQ(once.hash, again.hash) << "seed " << seed;
    EXPECT_EQ(once.events, again.events) << "seed " << seed;
    EXPECT_NE(once.hash, run_world(small_world(seed + 1'000'000)).hash);
  }
  const WorldSettings large = large_world(first, 40, 2'000);
  EXPECT_EQ(run_world(large).hash, run_world(large).hash);
}

TEST_F(Simulation, HoldsThemWithManyWorkers) {
  const uint64_t seed = std::random_device{}();
  const uint64_t jobs = kSanitized ? 2'000 : 10'000;
  const Outcome outcome = run_world(large_world(seed, kSanitized ? 50 : 128, jobs));
  expect_clean(outcome);
  EXPECT_GE(outcome.accepted, jobs) << "seed " << seed;
}

// Clients submit again what expired before they saw it: each job once, however many of a batch are lost.
TEST_F(Simulation, EndsWithResultsThatExpireBeforeTheyAreSeen) {
  constexpr int kWorldsWithLosses = kSanitized ? 1 : 4;
  const uint64_t first = std::random_device{}();
  int found = 0;
  for (uint64_t seed = first; !HasFailure() && found < kWorldsWithLosses && seed < first + 50; ++seed) {
    WorldSettings settings = large_world(seed, 40, 4'000);
    settings.clients = 2;
    settings.result_ttl_ms = 50;
    const Outcome outcome = run_world(settings);
    expect_clean(outcome);
    found += outcome.accepted > settings.jobs ? 1 : 0;
  }
  EXPECT_EQ(found, kWorldsWithLosses) << "first seed " << first;
}

// The CPU time that the scheduler spends on a job with six times as many workers and jobs, as a multiple.
double growth_of_work(Plant plant) {
  const auto cost = [&](size_t workers, uint64_t jobs) {
    WorldSettings settings = large_world(1, workers, jobs);
    settings.plant = plant;
    settings.fault_time = seconds(1);
    const Outcome outcome = run_world(settings);
    expect_clean(outcome);
    return outcome.scheduler_seconds / static_cast<double>(outcome.dispatched);
  };
  return cost(192, 12'000) / cost(32, 2'000);
}

TEST_F(Simulation, ShowsWhetherWorkGrowsWithTheSystem) {
  if (kSanitized) GTEST_SKIP() << "the sanitizers' own work is not the scheduler's";
  constexpr double kGrowthMax = 3;
  EXPECT_LT(growth_of_work(Plant::kNone), kGrowthMax);
  EXPECT_GT(growth_of_work(Plant::kScan), kGrowthMax) << "the planted walk was not noticed";
}

class PlantedBug : public ::testing::TestWithParam<PlantInfo> {
 protected:
  PlantedBug() { init_logging("simulation_test", "off", LogFormat::kText); }
};

TEST_P(PlantedBug, IsFoundAndTheSameWorldIsCleanWithoutIt) {
  if (kSanitized) GTEST_SKIP() << "the checks see the same without sanitizers, and much faster";
  const PlantInfo& info = GetParam();
  if (info.breaks == Invariant::kBoundedWork) GTEST_SKIP() << "see ShowsWhetherWorkGrowsWithTheSystem";
  for (uint64_t seed = 1; seed <= kPlantSeeds; ++seed) {
    const Outcome planted = run_world(small_world(seed, info.plant));
    if (planted.broken != info.breaks) continue;
    WorldSettings clean = small_world(seed, info.plant);
    clean.plant = Plant::kNone;
    expect_clean(run_world(clean));
    return;
  }
  ADD_FAILURE() << info.name << " does not break I" << static_cast<int>(info.breaks) << " in " << kPlantSeeds
                << " seeds";
}

std::string name_of(const ::testing::TestParamInfo<PlantInfo>& info) {
  std::string name(info.param.name);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, PlantedBug, ::testing::ValuesIn(kPlantTable), name_of);

}  // namespace simulation_test
}  // namespace optserve::simulation
