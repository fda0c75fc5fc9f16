// Prints an answer while it is made. Then follows the same job again, from the middle of its text, as a program does
// that was restarted.
//
//   stream [tcp://127.0.0.1:5555] [MODEL]
#include <optserve/client.h>

#include <cstdio>
#include <future>

using namespace optserve::client;

int main(int argc, char** argv) {
  ClientOptions options;
  if (argc > 1) options.endpoints = argv[1];
  Client client(options);

  JobSpec job;
  job.model = argc > 2 ? argv[2] : "demo";
  job.prompt = "Once upon a time";
  job.max_new_tokens = 40;
  job.sampling.top_p = 0.9f;
  job.sampling.seed = 1;
  const auto result = client.generate(job, [](std::string_view piece) {
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  });
  std::printf("\n");
  if (!result.ok() || result.value().state != JobState::kSucceeded) {
    std::fprintf(stderr, "%s\n", result.ok() ? result.value().message.c_str() : result.refusal().message.c_str());
    return 1;
  }

  const size_t half = result.value().text.size() / 2;  // a position in bytes
  std::string rest;
  std::promise<void> ended;
  JobStream stream;
  stream.on_text = [&](std::string_view piece, const JobEvent&) { rest += piece; };
  stream.on_finished = [&](const JobResult&) { ended.set_value(); };
  stream.on_lost = [&](const optserve::JobId&, const optserve::Refusal&) { ended.set_value(); };
  if (!client.attach(result.value().job, half, stream).ok()) return 1;
  ended.get_future().wait();
  std::printf("from byte %zu on: %s\n", half, rest.c_str());
  return rest == result.value().text.substr(half) ? 0 : 1;
}
