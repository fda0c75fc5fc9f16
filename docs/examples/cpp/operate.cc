// What an operator does: looks at the queue, pauses a model, sees a job wait, cancels it, resumes, lists and purges.
//
//   operate [tcp://127.0.0.1:5555] [MODEL]
#include <optserve/client.h>

#include <cstdio>

using namespace optserve::client;
using std::chrono::seconds;

// How many models are held, by all schedulers; -1 if one does not answer.
int print_status(const Answers<SystemStatus>& answers) {
  int held = 0;
  for (const auto& [endpoint, answer] : answers) {
    if (!answer.ok()) {
      std::fprintf(stderr, "%s: %s\n", endpoint.c_str(), answer.refusal().message.c_str());
      return -1;
    }
    for (const ModelStatus& model : answer.value().models) {
      const std::string mode(optserve::protocol::queue_mode_name(model.mode));
      std::printf("%s %s: %s, %ld queued\n", endpoint.c_str(), model.name.c_str(), mode.c_str(),
                  static_cast<long>(model.queued));
      if (model.mode != QueueMode::kOpen) ++held;
    }
  }
  return held;
}

int main(int argc, char** argv) {
  ClientOptions options;
  if (argc > 1) options.endpoints = argv[1];
  const std::string model = argc > 2 ? argv[2] : "demo";
  Client client(options);

  if (print_status(client.status()) < 0) return 1;
  if (print_status(client.control(ControlAction::kPause, ControlScope::kModel, model)) < 1) return 1;

  JobSpec job;
  job.model = model;
  job.tenant = "operators";
  job.prompt = "This one waits";
  const auto outcomes = client.submit({job});
  if (!outcomes.ok() || !outcomes.value()[0].job) return 1;
  const optserve::JobId id = *outcomes.value()[0].job;
  const auto waiting = client.wait(id, seconds(0));  // its state, at once
  const auto cancelled = client.cancel(id);
  if (!waiting.ok() || !cancelled.ok() || cancelled.value().state != JobState::kCancelled) return 1;

  if (print_status(client.control(ControlAction::kResume, ControlScope::kModel, model)) != 0) return 1;

  JobFilter filter;
  filter.tenant = "operators";
  for (const auto& [endpoint, answer] : client.list(filter, 100)) {
    if (!answer.ok()) return 1;
    for (const JobSummary& each : answer.value().jobs) {
      const std::string state(optserve::protocol::job_state_name(each.state));
      std::printf("%s is %s\n", each.job.hex().c_str(), state.c_str());
    }
  }
  const auto purged = client.purge(filter);
  if (!purged.ok()) return 1;
  std::printf("%ld purged\n", static_cast<long>(purged.value()));
  return purged.value() > 0 ? 0 : 1;
}
