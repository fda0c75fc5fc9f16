// Runs worlds, one seed after the other, and says what it found.
//   simulation --seeds 10000 --first 1
//   simulation --world large --workers 4096 --jobs 5000000
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <exception>

#include "base/config.h"
#include "base/log.h"
#include "simulation/world.h"

namespace {

using namespace optserve;
using namespace optserve::simulation;

struct Options {
  int64_t seeds = 1;
  int64_t first = 1;
  std::string world = "small";
  int64_t workers = 4'096;
  int64_t jobs = 5'000'000;
  std::string plant;
};

char running[64];  // what a failed check leaves behind

void say_which_seed(int) {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, running, std::strlen(running));
}

double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

Plant plant_of(const std::string& name) {
  if (name.empty()) return Plant::kNone;
  for (const PlantInfo& info : kPlantTable) {
    if (info.name == name) return info.plant;
  }
  throw Error("--plant: there is no plant called '" + name + "'");
}

void print_failure(const Outcome& outcome) {
  std::printf("%sseed %llu breaks I%d after %.3f s: %s\n", outcome.trace.c_str(),
              static_cast<unsigned long long>(outcome.seed), static_cast<int>(*outcome.broken),
              outcome.simulated_seconds, outcome.what.c_str());
}

void print_large(const Outcome& outcome) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto per = [&](uint64_t count) {
    return count == 0 ? 0.0 : outcome.scheduler_seconds * 1e6 / static_cast<double>(count);
  };
  std::printf(
      "accepted %llu, succeeded %llu, dispatched %llu; scheduler: %.1f s CPU, %.2f us a call, %.2f us a dispatched "
      "job, longest call %.2f ms; waiting for the journal at most %zu messages; peak memory %ld MiB\n",
      static_cast<unsigned long long>(outcome.accepted), static_cast<unsigned long long>(outcome.succeeded),
      static_cast<unsigned long long>(outcome.dispatched), outcome.scheduler_seconds, per(outcome.scheduler_calls),
      per(outcome.dispatched), static_cast<double>(outcome.longest_call_ns) * 1e-6, outcome.gated_max,
      usage.ru_maxrss / 1024);
}

int run(const Options& options) {
  const Plant plant = plant_of(options.plant);
  if (options.world != "small" && options.world != "large") throw Error("--world: expected small or large");
  const double begin = cpu_seconds();
  uint64_t events = 0, hash = 0, accepted = 0, put_back = 0, starts = 0;
  double simulated = 0;
  int64_t done = 0;
  for (; done < options.seeds; ++done) {
    const auto seed = static_cast<uint64_t>(options.first + done);
    std::snprintf(running, sizeof running, "while running seed %llu\n", static_cast<unsigned long long>(seed));
    WorldSettings settings = options.world == "large" ? large_world(seed, static_cast<size_t>(options.workers),
                                                                    static_cast<uint64_t>(options.jobs))
                                                      : small_world(seed, plant);
    settings.plant = plant;
    const Outcome outcome = run_world(settings);
    events += outcome.events;
    hash = mix(hash, outcome.hash);
    accepted += outcome.accepted;
    put_back += outcome.put_back;
    starts += outcome.scheduler_starts;
    simulated += outcome.simulated_seconds;
    if (settings.large) print_large(outcome);
    if (!outcome.broken) continue;
    print_failure(outcome);
    return 1;
  }
  const double took = cpu_seconds() - begin;
  std::printf(
      "%lld seeds from %lld: %llu events, %llu jobs, %llu put back, %llu starts of the scheduler, %.0f s simulated "
      "in %.1f s of CPU, %.0f events/s, hash %016llx\n",
      static_cast<long long>(done), static_cast<long long>(options.first), static_cast<unsigned long long>(events),
      static_cast<unsigned long long>(accepted), static_cast<unsigned long long>(put_back),
      static_cast<unsigned long long>(starts), simulated, took, static_cast<double>(events) / took,
      static_cast<unsigned long long>(hash));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  ConfigParser parser("simulation", "Runs the whole system in one thread on a virtual clock, with faults.");
  parser.add("seeds", options.seeds, "How many worlds");
  parser.add("first", options.first, "Seed of the first one");
  parser.add("world", options.world, "small: a few processes, all faults. large: many workers and jobs, mild faults");
  parser.add("workers", options.workers, "large: how many workers");
  parser.add("jobs", options.jobs, "large: how many jobs");
  parser.add("plant", options.plant, "Something that is wrong on purpose, such as early-durable");
  if (const int status = parser.parse(argc, argv); status >= 0) return status;
  std::signal(SIGABRT, say_which_seed);
  init_logging("simulation", "off", LogFormat::kText);
  try {
    return run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "simulation: %s\n", error.what());
    return 2;
  }
}
