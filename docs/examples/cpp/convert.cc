// Converts a checkpoint with a converter service ('optserve up --converter-root FOLDER'), and shows how far it is. The
// paths are those of the converter's file system.
//
//   convert SOURCE DESTINATION [tcp://127.0.0.1:5555]
#include <optserve/client.h>

#include <cstdio>
#include <future>

using namespace optserve::client;

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: convert SOURCE DESTINATION [ADDRESS]\n");
    return 2;
  }
  ClientOptions options;
  if (argc > 3) options.endpoints = argv[3];
  Client client(options);

  JobSpec job;
  job.kind = JobKind::kConvert;
  job.convert = ConvertSpec{.source = argv[1], .destination = argv[2], .dtype = "fp16", .verify = true};

  std::promise<bool> converted;
  JobStream stream;
  stream.on_progress = [](const JobEvent& event) {
    std::printf("%ld of %ld bytes\n", static_cast<long>(event.progress_done), static_cast<long>(event.progress_total));
  };
  stream.on_finished = [&](const JobResult& result) {
    if (result.state != JobState::kSucceeded) std::fprintf(stderr, "%s\n", result.message.c_str());
    converted.set_value(result.state == JobState::kSucceeded);
  };
  stream.on_lost = [&](const optserve::JobId&, const optserve::Refusal& why) {
    std::fprintf(stderr, "%s\n", why.message.c_str());
    converted.set_value(false);
  };
  const auto outcomes = client.submit({job}, stream);
  if (!outcomes.ok() || !outcomes.value()[0].job) {
    const std::string why = outcomes.ok() ? outcomes.value()[0].message : outcomes.refusal().message;
    std::fprintf(stderr, "%s\n", why.c_str());
    return 1;
  }
  return converted.get_future().get() ? 0 : 1;
}
