// Submits one job, and waits for its result as another program would: by its id.
//
//   submit_and_wait [tcp://127.0.0.1:5555] [MODEL]
#include <optserve/client.h>

#include <cstdio>

using namespace optserve::client;
using std::chrono::seconds;

int main(int argc, char** argv) {
  ClientOptions options;
  if (argc > 1) options.endpoints = argv[1];
  Client client(options);

  JobSpec job;
  job.key = "first-order";  // submitting again with this key gives the same job
  job.model = argc > 2 ? argv[2] : "demo";
  job.prompt = "Once upon a time";
  job.max_new_tokens = 20;
  job.sampling.temperature = 0;
  const auto outcomes = client.submit({job});
  if (!outcomes.ok()) {
    std::fprintf(stderr, "no scheduler answered: %s\n", outcomes.refusal().message.c_str());
    return 1;
  }
  const SubmitOutcome& outcome = outcomes.value()[0];
  if (!outcome.job) {
    std::fprintf(stderr, "refused: %s\n", outcome.message.c_str());
    return 1;
  }

  const auto result = client.wait(*outcome.job, seconds(60));
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.refusal().message.c_str());
    return 1;
  }
  std::printf("%s: %s\n", outcome.job->hex().c_str(), result.value().text.c_str());
  return result.value().state == JobState::kSucceeded ? 0 : 1;
}
