#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "base/limits.h"
#include "base/shutdown.h"
#include "cli/bench/bench_runs.h"
#include "cli/commands/connection.h"

namespace optserve::cli {
namespace {

using nlohmann::json;
using workload::BenchKind;
using workload::BenchRequest;

constexpr milliseconds kShutdownPoll{200};
constexpr int64_t kResultTtlMs = 60'000;

// What the client's thread has learned about the jobs of one run.
struct Heard {
  std::mutex mutex;
  std::condition_variable changed;
  size_t finished = 0;
  std::unordered_map<JobId, uint32_t> tokens;
  uint64_t all_tokens = 0;
  std::optional<std::string> failure;

  void count_tokens(const JobId& job, uint32_t now) {
    uint32_t& before = tokens[job];
    all_tokens += now - std::min(before, now);
    before = std::max(before, now);
  }
};

client::JobStream stream_into(const std::shared_ptr<Heard>& heard) {
  client::JobStream stream;
  stream.on_progress = [heard](const protocol::JobEvent& event) {
    const std::lock_guard lock(heard->mutex);
    heard->count_tokens(event.job, event.tokens);
  };
  stream.on_finished = [heard](const protocol::JobResult& result) {
    const std::lock_guard lock(heard->mutex);
    heard->count_tokens(result.job, static_cast<uint32_t>(result.ids.size()));
    ++heard->finished;
    if (result.state != protocol::JobState::kSucceeded) {
      heard->failure = "job " + result.job.hex() + " " + std::string(job_state_name(result.state)) +
                       (result.message.empty() ? "" : ": " + result.message);
    }
    heard->changed.notify_one();
  };
  stream.on_lost = [heard](const JobId&, const Refusal& why) {
    const std::lock_guard lock(heard->mutex);
    heard->failure = "a job was lost: " + why.message;
    heard->changed.notify_one();
  };
  return stream;
}

// The number of jobs that the workers of a model hold, running or waiting for a free slot.
int32_t leases_of(Client& client, const std::string& model) {
  int32_t leases = 0;
  for (const auto& [endpoint, status] : client.status()) {
    for (const protocol::ServiceStatus& service : value_or_fail(status).services) {
      const auto& models = service.models;
      if (service.kind == "worker" && std::find(models.begin(), models.end(), model) != models.end()) {
        leases += service.capacity;
      }
    }
  }
  return leases;
}

// By default a worker holds a quarter more jobs than it runs.
int32_t usually_running(int32_t leases) { return leases - leases / 5; }

class PipelineRuns {
 public:
  PipelineRuns(const PipelineBench& bench, const OnBenchEvent& on_event) : bench_(bench), on_event_(on_event) {}

  void measure(int32_t batch) {
    const workload::BenchSpec& spec = bench_.spec;
    json event = {{"event", "measurement"}, {"kind", workload::bench_kind_name(spec.kind)}};
    if (batch > 0) {
      event["batch"] = batch;
      if (!check_fits(batch, event)) return on_event_(event);
    }
    std::vector<double> seconds;
    std::optional<DeviceUsage> device = DeviceUsage{};
    for (int32_t i = 0; i < spec.warmup + spec.repeats; ++i) {
      const auto before = device_usage();
      const auto whole_time = execute(batch, i);
      if (!whole_time) return;
      if (i < spec.warmup) continue;
      seconds.push_back(*whole_time);
      const auto used = usage_between(before, device_usage());
      if (used && device) device = {device->busy_ms + used->busy_ms, device->idle_ms + used->idle_ms};
      if (!used) device = std::nullopt;
    }
    event.update(
        {{"fits", true}, {"seconds", seconds}, {"input_tokens", input_tokens_}, {"output_tokens", output_tokens_}});
    if (device) event.update({{"device_busy_ms", device->busy_ms}, {"device_idle_ms", device->idle_ms}});
    on_event_(event);
  }

 private:
  std::optional<DeviceUsage> device_usage() const { return bench_.device_usage ? bench_.device_usage() : std::nullopt; }

  // False if the batch certainly cannot run as a whole; then the event gets the reason.
  bool check_fits(int32_t batch, json& event) const {
    if (bench_.runs_every_batch) return true;
    const int32_t leases = leases_of(bench_.client, bench_.model);
    if (batch > leases) {
      event.update(
          {{"fits", false}, {"reason", "the workers hold " + std::to_string(leases) + " sequences at a time"}});
      return false;
    }
    if (batch > usually_running(leases)) {
      event["note"] = "of the " + std::to_string(leases) + " sequences that the workers hold, by default " +
                      std::to_string(usually_running(leases)) + " run at a time: a part of the batch may have waited";
    }
    return true;
  }

  std::vector<protocol::JobSpec> make_jobs(int32_t batch, int32_t index) {
    const auto requests = batch > 0 ? workload::make_batch(bench_.spec, batch, index, bench_.bounds)
                                    : workload::make_requests(bench_.spec, index, bench_.bounds);
    std::vector<protocol::JobSpec> jobs;
    input_tokens_ = output_tokens_ = 0;
    for (const BenchRequest& request : requests) {
      protocol::JobSpec& job = jobs.emplace_back();
      job.model = bench_.model;
      job.prompt_ids = request.prompt;
      job.sampling = request.sampling;
      job.max_new_tokens = request.new_tokens;
      job.ttl_ms = limits::kJobTtlMsMax;
      job.result_ttl_ms = kResultTtlMs;
      input_tokens_ += static_cast<int64_t>(request.prompt.size());
      output_tokens_ += request.new_tokens;
    }
    return jobs;
  }

  // Seconds from the submit to the last result. Nothing if the benchmark is ended early.
  std::optional<double> execute(int32_t batch, int32_t index) {
    std::vector<protocol::JobSpec> jobs = make_jobs(batch, index);
    const size_t count = jobs.size();
    const auto heard = std::make_shared<Heard>();
    report_progress(batch, index, 0);
    const Instant start = bench_.clock.now();
    const auto outcomes = value_or_fail(bench_.client.submit(std::move(jobs), stream_into(heard)));
    for (const protocol::SubmitOutcome& outcome : outcomes) {
      if (outcome.job) continue;
      cancel_all(outcomes);
      fail(refuse(outcome.error.value_or(ErrorCode::kInternal), outcome.message));
    }
    while (true) {
      std::unique_lock lock(heard->mutex);
      heard->changed.wait_for(lock, kShutdownPoll, [&] { return heard->finished == count || heard->failure; });
      const Instant now = bench_.clock.now();
      const auto tokens = static_cast<int64_t>(heard->all_tokens);
      const bool done = heard->finished == count;
      const auto failure = heard->failure;
      lock.unlock();
      if (failure || (shutdown_requested() && !done)) cancel_all(outcomes);
      if (failure) throw Error(*failure);
      if (shutdown_requested()) return std::nullopt;
      if (done) return check_tokens(tokens, std::chrono::duration<double>(now - start).count());
      report_progress(batch, index, tokens);
    }
  }

  double check_tokens(int64_t tokens, double seconds) const {
    if (tokens != output_tokens_) {
      throw Error("expected " + std::to_string(output_tokens_) + " new tokens, the pipeline gave " +
                  std::to_string(tokens));
    }
    return seconds;
  }

  void cancel_all(const std::vector<protocol::SubmitOutcome>& outcomes) const {
    for (const protocol::SubmitOutcome& outcome : outcomes) {
      if (!outcome.job) continue;
      if (shutdown_forced()) return;
      const auto ignored = bench_.client.cancel(*outcome.job);
      if (!ignored.ok()) return;  // the scheduler does not answer
    }
  }

  void report_progress(int32_t batch, int32_t index, int64_t done) const {
    const workload::BenchSpec& spec = bench_.spec;
    const bool warming = index < spec.warmup;
    json event = {{"event", "progress"}, {"warmup", warming}, {"done", done}, {"total", output_tokens_}};
    event["run"] = warming ? index : index - spec.warmup;
    event["runs"] = warming ? spec.warmup : spec.repeats;
    if (batch > 0) event["batch"] = batch;
    on_event_(event);
  }

  const PipelineBench& bench_;
  const OnBenchEvent& on_event_;
  int64_t input_tokens_ = 0;  // of the present run
  int64_t output_tokens_ = 0;
};

}  // namespace

void run_on_pipeline(const PipelineBench& bench, const OnBenchEvent& on_event) {
  install_shutdown_signals();
  PipelineRuns runs(bench, on_event);
  const bool latency = bench.spec.kind == BenchKind::kLatency;
  for (const int32_t batch : latency ? bench.spec.batches : std::vector<int32_t>{0}) {
    if (!shutdown_requested()) runs.measure(batch);
  }
  on_event({{"event", "finished"}, {"complete", !shutdown_requested()}});
}

}  // namespace optserve::cli
