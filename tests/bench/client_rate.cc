// How fast the C++ client library is: jobs accepted a second in bulk, streamed tokens a second, and jobs of one token a
// second, one after the other. client_rate ENDPOINT submit|stream|single JOBS prints the number;
// tests/bench/client_rate.py runs it beside Python.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <future>
#include <string>

#include "client/client.h"

namespace {

optserve::protocol::JobSpec job_of(int32_t tokens) {
  optserve::protocol::JobSpec job;
  job.model = "demo";
  job.prompt = "Once upon a time";
  job.max_new_tokens = tokens;
  return job;
}

double rate(size_t count, std::chrono::steady_clock::time_point begin) {
  return static_cast<double>(count) / std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: client_rate ENDPOINT submit|stream|single JOBS\n");
    return 2;
  }
  const size_t count = std::stoul(argv[3]);
  optserve::client::ClientOptions options;
  options.endpoints = argv[1];
  options.timeout = std::chrono::milliseconds(60'000);
  optserve::client::Client client(options);
  std::atomic<size_t> pieces{0}, ended{0};
  std::promise<void> all_ended;
  optserve::client::JobStream stream;
  const bool is_streamed = std::string(argv[2]) == "stream";
  if (is_streamed) {
    stream.on_text = [&](std::string_view, const optserve::protocol::JobEvent&) { ++pieces; };
    stream.on_finished = [&](const optserve::protocol::JobResult&) {
      if (++ended == count) all_ended.set_value();
    };
  }
  client.status();  // connected
  const auto begin = std::chrono::steady_clock::now();
  if (std::string(argv[2]) == "single") {
    for (size_t i = 0; i < count; ++i) {
      if (!client.generate(job_of(1)).ok()) return 1;
    }
    std::printf("%.0f\n", rate(count, begin));
    return 0;
  }
  const auto outcomes = client.submit({count, job_of(is_streamed ? 1000 : 16)}, stream);
  if (!outcomes.ok()) {
    std::fprintf(stderr, "client_rate: %s\n", outcomes.refusal().message.c_str());
    return 1;
  }
  if (is_streamed) all_ended.get_future().wait();
  std::printf("%.0f\n", rate(is_streamed ? pieces.load() : count, begin));
  return 0;
}
