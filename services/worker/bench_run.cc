#include "worker/bench_run.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/build_info.h"
#include "base/limits.h"
#include "base/shutdown.h"
#include "engine/generate.h"
#include "workload/requests.h"

namespace optserve::worker {
namespace {

using nlohmann::json;
using workload::BenchKind;
using workload::BenchRequest;
using workload::BenchSpec;

constexpr Duration kProgressInterval = milliseconds(200);

struct Run {
  double seconds = 0;
  uint64_t steps = 0;
  uint64_t preemptions = 0;
  uint64_t drafted_tokens = 0, accepted_tokens = 0;
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  double device_busy_ms = 0, device_idle_ms = 0;
  bool complete = false;
};

class Bench {
 public:
  Bench(engine::GroupLeader& leader, const engine::Engine& engine, const BenchSpec& spec, const BenchHost& host)
      : leader_(leader),
        engine_(engine),
        spec_(spec),
        host_(host),
        bounds_{static_cast<int32_t>(engine.config().max_positions), static_cast<int32_t>(engine.config().vocab_real)} {
  }

  // Reports the measured runs of one batch as one event. Batch 0 stands for the throughput benchmark.
  void measure(int32_t batch) {
    json event = {{"event", "measurement"}, {"kind", workload::bench_kind_name(spec_.kind)}};
    if (batch > 0) event["batch"] = batch;
    const auto obstacle = why_not_fitting(batch);
    if (obstacle) return report_not_fitting(std::move(event), *obstacle);
    std::vector<double> seconds;
    Run run;
    for (int32_t i = 0; i < spec_.warmup + spec_.repeats; ++i) {
      run = execute(batch, i);
      if (!run.complete) return;
      if (batch > 0 && run.preemptions > 0) {
        return report_not_fitting(std::move(event), "the KV cache ran full and " + std::to_string(run.preemptions) +
                                                        " sequences had to start again");
      }
      if (i >= spec_.warmup) seconds.push_back(run.seconds);
    }
    event.update({{"fits", true},
                  {"seconds", seconds},
                  {"steps", run.steps},
                  {"preemptions", run.preemptions},
                  {"drafted_tokens", run.drafted_tokens},
                  {"accepted_tokens", run.accepted_tokens},
                  {"device_busy_ms", run.device_busy_ms},
                  {"device_idle_ms", run.device_idle_ms},
                  {"input_tokens", run.input_tokens},
                  {"output_tokens", run.output_tokens}});
    host_.emit(event);
  }

 private:
  void report_not_fitting(json event, const std::string& why) const {
    event.update({{"fits", false}, {"reason", why}});
    host_.emit(event);
  }

  // A batch must run as a whole: sequences that wait or are preempted would make it a measurement of something else.
  std::optional<std::string> why_not_fitting(int32_t batch) const {
    const engine::EngineOptions& options = engine_.options();
    if (batch > options.max_sequences) {
      return "the engine takes " + std::to_string(options.max_sequences) + " sequences at a time (max-sequences)";
    }
    const int64_t longest = int64_t{spec_.input_tokens} + spec_.output_tokens;
    const int64_t needed = batch * ((longest + limits::kKvBlockTokens - 1) / limits::kKvBlockTokens);
    if (needed <= options.num_blocks) return std::nullopt;
    return "the KV cache holds " + std::to_string(int64_t{options.num_blocks} * limits::kKvBlockTokens) +
           " tokens, the batch needs " + std::to_string(needed * limits::kKvBlockTokens);
  }

  std::vector<batching::SequenceRequest> requests(int32_t batch, int32_t run) const {
    std::vector<BenchRequest> made =
        batch > 0 ? workload::make_batch(spec_, batch, run, bounds_) : workload::make_requests(spec_, run, bounds_);
    std::vector<batching::SequenceRequest> list;
    for (BenchRequest& one : made) {
      batching::SequenceRequest& request = list.emplace_back();
      request.prompt_tokens = static_cast<int32_t>(one.prompt.size());
      request.tokens = std::move(one.prompt);
      request.max_new_tokens = one.new_tokens;
      request.sampling = one.sampling;
    }
    return list;
  }

  Run execute(int32_t batch, int32_t index) {
    Run run;
    std::vector<batching::SequenceRequest> list = requests(batch, index);
    std::vector<size_t> expected;
    for (const auto& request : list) {
      run.input_tokens += request.prompt_tokens;
      run.output_tokens += request.max_new_tokens;
      expected.push_back(static_cast<size_t>(request.max_new_tokens));
    }
    report_progress(batch, index, 0, run.output_tokens);
    batching::PlannerStats stats;
    const engine::Engine::DeviceTime before = engine_.device_time();
    const Instant start = host_.clock.now();
    Instant reported = start;
    batching::PlannerOptions planner = planner_options(engine_);
    planner.prefix_cache = host_.prefix_cache;
    planner.draft_tokens = host_.draft_tokens;
    const auto on_step = [&](const engine::GenerateProgress& progress) {
      run.steps = progress.steps;
      const Instant now = host_.clock.now();
      if (now - reported < kProgressInterval) return true;
      reported = now;
      report_progress(batch, index, static_cast<int64_t>(progress.tokens), run.output_tokens);
      return !host_.is_stopped();
    };
    const auto generations =
        engine::generate_all(leader_, planner, std::move(list), &stats, on_step, host_.draft_source);
    run.seconds = std::chrono::duration<double>(host_.clock.now() - start).count();
    run.device_busy_ms = engine_.device_time().busy_ms - before.busy_ms;
    run.device_idle_ms = engine_.device_time().idle_ms - before.idle_ms;
    run.preemptions = stats.preemptions;
    run.drafted_tokens = stats.drafted_tokens;
    run.accepted_tokens = stats.accepted_tokens;
    run.complete = !host_.is_stopped();
    if (run.complete) expect_whole(generations, expected);
    return run;
  }

  static void expect_whole(const std::vector<engine::Generation>& generations, const std::vector<size_t>& expected) {
    for (size_t i = 0; i < generations.size(); ++i) {
      if (generations[i].finished == sampling::FinishReason::kError) {
        throw Error("the model computed NaN or Inf, so its speed says nothing");
      }
      if (generations[i].tokens.size() != expected[i]) {
        throw Error("expected " + std::to_string(expected[i]) + " new tokens, the engine gave " +
                    std::to_string(generations[i].tokens.size()));
      }
    }
  }

  void report_progress(int32_t batch, int32_t index, int64_t done, int64_t total) const {
    const bool warming = index < spec_.warmup;
    json event = {{"event", "progress"}, {"warmup", warming}, {"done", done}, {"total", total}};
    event["run"] = warming ? index : index - spec_.warmup;
    event["runs"] = warming ? spec_.warmup : spec_.repeats;
    if (batch > 0) event["batch"] = batch;
    host_.emit(event);
  }

  engine::GroupLeader& leader_;
  const engine::Engine& engine_;
  const BenchSpec& spec_;
  const BenchHost& host_;
  workload::ModelBounds bounds_;
};

}  // namespace

void run_bench(engine::GroupLeader& leader, const engine::Engine& engine, const BenchSpec& spec,
               const BenchHost& host) {
  const model_spec::OptConfig& config = engine.config();
  if (const Status status = check_context(spec, config.name, config.max_positions); !status.ok()) {
    throw Error(status.refusal().message);
  }
  Bench bench(leader, engine, spec, host);
  const std::vector<int32_t> batches = spec.kind == BenchKind::kLatency ? spec.batches : std::vector<int32_t>{0};
  for (const int32_t batch : batches) {
    if (!host.is_stopped()) bench.measure(batch);
  }
  host.emit({{"event", "finished"}, {"complete", !host.is_stopped()}});
}

int lead_bench(const WorkerOptions& options, engine::GroupLeader& leader, const engine::Engine& engine,
               const backend::Backend& backend, batching::DraftSource* draft_source, const Clock& clock) {
  const auto spec = workload::read_bench_spec(options.bench);
  if (!spec.ok()) throw Error(spec.refusal().message);
  const auto emit = [](const json& event) {
    std::fputs((event.dump() + "\n").c_str(), stdout);
    if (std::fflush(stdout) != 0) throw errno_error("write to standard output");
  };
  const model_spec::OptConfig& config = engine.config();
  emit({{"event", "started"},
        {"model", options.model_name()},
        {"parameters", model_spec::published_parameter_count(config)},
        {"device", backend.description()},
        {"dtype", dtype_name(backend.compute_dtype())},
        {"world", options.world},
        {"max_sequences", engine.options().max_sequences},
        {"max_step_tokens", engine.options().max_step_tokens},
        {"kv_tokens", int64_t{engine.options().num_blocks} * limits::kKvBlockTokens},
        {"version", build_version()}});
  run_bench(leader, engine, spec.value(),
            {clock, emit, shutdown_requested, options.prefix_cache, options.draft_tokens, draft_source});
  return kExitOk;
}

}  // namespace optserve::worker
