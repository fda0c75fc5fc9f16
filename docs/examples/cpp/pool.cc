// 1,000 jobs at once: submitted in one call, watched as a group, and collected as they end.
//
//   pool [tcp://127.0.0.1:5555] [MODEL] [JOBS]
#include <optserve/client.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

using namespace optserve::client;

int main(int argc, char** argv) {
  ClientOptions options;
  if (argc > 1) options.endpoints = argv[1];
  const size_t count = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 1000;
  Client client(options);

  const std::string group = "pool-" + optserve::JobId::random().hex();
  std::vector<JobSpec> jobs(count);
  for (size_t i = 0; i < count; ++i) {
    jobs[i].key = group + "-" + std::to_string(i);
    jobs[i].group = group;
    jobs[i].model = argc > 2 ? argv[2] : "demo";
    jobs[i].prompt = "Chapter " + std::to_string(i);
    jobs[i].max_new_tokens = 1;
    jobs[i].sampling.seed = i;
  }

  std::mutex mutex;  // callbacks run on the client's thread
  std::condition_variable changed;
  size_t ended = 0, tokens = 0;
  JobStream stream;
  stream.on_finished = [&](const JobResult& result) {
    const std::lock_guard lock(mutex);
    ++ended, tokens += result.ids.size();
    changed.notify_one();
  };
  const auto outcomes = client.submit(jobs, stream);
  if (!outcomes.ok()) {
    std::fprintf(stderr, "%s\n", outcomes.refusal().message.c_str());
    return 1;
  }
  size_t accepted = 0;
  for (const SubmitOutcome& outcome : outcomes.value()) accepted += outcome.job.has_value();

  const auto before = client.group("", group);
  if (before.ok()) std::printf("%zu accepted, %ld open\n", accepted, static_cast<long>(before.value().open));
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return ended == accepted; });
  }
  const auto after = client.group("", group);
  if (!after.ok()) return 1;
  std::printf("%ld succeeded, %zu tokens\n", static_cast<long>(after.value().succeeded), tokens);
  return static_cast<size_t>(after.value().succeeded) == count ? 0 : 1;
}
