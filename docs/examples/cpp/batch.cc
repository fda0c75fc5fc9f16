// Continues each line of a file, and writes the answers in the order of the lines. A line's key is its number, so that
// the program can be killed and started again: what was accepted is not computed twice.
//
//   batch INPUT OUTPUT [tcp://127.0.0.1:5555] [MODEL]
#include <optserve/client.h>

#include <cstdio>
#include <fstream>
#include <vector>

using namespace optserve::client;

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: batch INPUT OUTPUT [ADDRESS] [MODEL]\n");
    return 2;
  }
  ClientOptions options;
  if (argc > 3) options.endpoints = argv[3];
  std::ifstream input(argv[1]);
  std::vector<JobSpec> jobs;
  for (std::string line; std::getline(input, line);) {
    JobSpec job;
    job.key = "line-" + std::to_string(jobs.size() + 1);
    job.group = "batch";
    job.model = argc > 4 ? argv[4] : "demo";
    job.prompt = line;
    job.max_new_tokens = 12;
    job.sampling.temperature = 0;
    jobs.push_back(job);
  }

  Client client(options);
  std::vector<std::future<optserve::Result<JobResult>>> results;
  for (const JobSpec& job : jobs) results.push_back(client.start(job));

  std::ofstream output(argv[2]);
  int failed = 0;
  for (auto& each : results) {
    const auto result = each.get();
    const bool succeeded = result.ok() && result.value().state == JobState::kSucceeded;
    if (!succeeded) ++failed;
    output << (succeeded ? result.value().text : std::string()) << "\n---\n";
  }
  std::printf("%zu lines, %d failed\n", results.size(), failed);
  return failed == 0 && output.good() ? 0 : 1;
}
