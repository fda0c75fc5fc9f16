// chaos: runs a whole local system under load, breaks it at random, and checks that nothing is lost. docs/testing.md
// says more.
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
  parser.add("ledger", options.ledger, "File in which it writes what it did and saw");
  parser.add("seed", options.seed, "Seed of the jobs");
  parser.add("client", options.client, "Number of this client");
  parser.add("rate", options.rate, "Jobs a second");
  parser.add("threads", options.threads, "Threads that submit");
  parser.add("slow-ms", options.slow_ms, "How long it takes to look at the first piece of a job");
  parser.add("open-max", options.open_max, "Most jobs that have not ended; jobs that would exceed it are left out");
  parser.add("drain-seconds", options.drain_seconds, "After SIGTERM it gives up when no job has ended for this long");
  if (const int status = parser.parse(argc, argv); status >= 0) return status;
  return run_load_client(options);
}

int run_all(int argc, char** argv) {
  RunOptions options;
  options.seed = std::random_device{}();
  std::string names;
  for (const std::string& name : fault_names()) names += " " + name;
  ConfigParser parser("chaos", "Breaks a local system under load at random, and checks what became of every job.");
  parser.add("seed", options.seed, "Seed of jobs and faults; random unless given");
  parser.add("seconds", options.seconds, "How long faults are injected");
  parser.add("load", options.load, "Jobs a second of all clients together");
  parser.add("clients", options.clients, "Client processes");
  parser.add("every-ms", options.every_ms, "Mean time between two faults");
  parser.add("faults", options.faults, "Which faults are injected; all unless given. There are:" + names);
  parser.add("report", options.report, "File for the summary as JSON; the text is written beside it");
  parser.add("folder", options.folder,
             "Folder in which ledgers, logs and the journal stay; a temporary one unless given");
  parser.add("namespaces", options.namespaces,
             "Put each process into a network namespace of its own, if the machine allows it");
  parser.add("sabotage", options.sabotage, "Delete the journal once; the run succeeds if it finds the loss");
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
