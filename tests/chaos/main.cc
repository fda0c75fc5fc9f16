// chaos: a whole local system under load that is broken at random and must lose nothing. docs/testing.md says more.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <random>

#include "base/config.h"
#include "chaos_run.h"
#include "launch.h"
#include "load_client.h"
#include "nemesis.h"

namespace {

using namespace optserve;
using namespace optserve::chaos;

int run_client(int argc, char** argv) {
  LoadOptions options;
  ConfigParser parser("chaos client", "One client process of a chaos run.");
  parser.add("endpoint", options.endpoint, "Scheduler");
  parser.add("ledger", options.ledger, "File of what it did and saw");
  parser.add("seed", options.seed, "Of the jobs");
  parser.add("client", options.client, "Number of this client");
  parser.add("rate", options.rate, "Jobs a second");
  parser.add("threads", options.threads, "Threads that submit");
  parser.add("slow-ms", options.slow_ms, "Time that it takes to look at the first piece of a job");
  parser.add("open-max", options.open_max, "Jobs that have not ended: what would arrive beyond is left out");
  parser.add("drain-seconds", options.drain_seconds, "After SIGTERM, without the end of any job");
  if (const int status = parser.parse(argc, argv); status >= 0) return status;
  return run_load_client(options);
}

int run_all(int argc, char** argv) {
  RunOptions options;
  options.seed = std::random_device{}();
  std::string names;
  for (const std::string& name : fault_names()) names += " " + name;
  ConfigParser parser("chaos", "Breaks a local system under load at random and reconciles every job.");
  parser.add("seed", options.seed, "Of jobs and faults; random unless given");
  parser.add("seconds", options.seconds, "How long faults are injected");
  parser.add("load", options.load, "Jobs a second of all clients together");
  parser.add("clients", options.clients, "Client processes");
  parser.add("every-ms", options.every_ms, "Mean time between two faults");
  parser.add("faults", options.faults, "All unless given; of:" + names);
  parser.add("report", options.report, "File for the summary as JSON; its text goes beside it");
  parser.add("folder", options.folder, "Where ledgers, logs and the journal stay; a temporary folder unless given");
  parser.add("namespaces", options.namespaces, "Each process in a network namespace, where the machine allows it");
  parser.add("sabotage", options.sabotage, "Delete the journal once: succeeds if the loss is found");
  if (const int status = parser.parse(argc, argv); status >= 0) return status;
  for (const std::string& name : options.faults) {
    const auto& known = fault_names();
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    std::fprintf(stderr, "chaos: no fault is called '%s'\n", name.c_str());
    return 2;
  }
  return run_chaos(options);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string first = argc > 1 ? argv[1] : "";
  try {
    if (first == "launch") return become({argv + 2, argv + argc});
    if (first == "client") return run_client(argc - 1, argv + 1);
    return run_all(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "chaos: %s\n", error.what());
    return 1;
  }
}
