#include "worker/rank.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "base/format_names.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/shutdown.h"
#include "base/termination.h"
#include "checkpoint/manifest/model_identity.h"
#include "confinement/program_cage.h"
#include "engine/draft/draft_model.h"
#include "engine/generate.h"
#include "engine/group.h"
#include "engine/memory_plan.h"
#include "http/health_server.h"
#include "transport/scheduler_session.h"
#include "worker/bench_run.h"
#include "worker/engine_thread.h"
#include "worker/group_communicator.h"
#include "worker/group_status.h"
#include "worker/worker_service.h"

namespace optserve::worker {
namespace {

// What the process of a rank shows to the outside, and its clock.
struct RankProcess {
  metrics::Registry& registry;
  metrics::Health& health;
  GroupStatus& status;
  const Clock& clock;
};

// A small model with which rank 0 guesses the next tokens.
struct LoadedDraft {
  std::unique_ptr<backend::Backend> backend;
  std::unique_ptr<comm::Communicator> communicator;
  std::unique_ptr<engine::Engine> engine;
  std::unique_ptr<engine::DraftModel> model;
};

// Everything one rank needs to execute steps, in the order of construction.
struct LoadedRank {
  LoadedDraft draft;
  std::unique_ptr<backend::Backend> backend;
  std::unique_ptr<comm::Communicator> communicator;
  std::unique_ptr<engine::Engine> engine;
};

// Ends this process when the supervisor ends, in case the parent-death signal was missed.
void watch_lifeline(int fd) {
  std::thread([fd] {
    pollfd polled{fd, POLLIN, 0};
    while (poll(&polled, 1, -1) < 1) {
    }
    _exit(1);  // no destructors: peers and devices may be stuck
  }).detach();
}

// The type of the cells of the KV cache; nullopt: the compute type.
std::optional<DType> kv_dtype(const WorkerOptions& options) {
  static_assert(kKvDtypeNames.size() == 1);
  if (options.kv_dtype == kKvDtypeNames.front()) return DType::kI8;
  return std::nullopt;
}

// Memory of a rank on the CPU for its KV cache: what is asked for, or what the weights leave of the memory that the
// ranks of this host share. The kernel kills a container that takes more, without a message.
int64_t kv_memory_bytes(const WorkerOptions& options, const model_spec::OptConfig& config) {
  constexpr int64_t kMiB = int64_t{1} << 20, kOthers = 256 * kMiB;  // program, workspace, buffers
  const int64_t wanted = options.kv_memory_mb * kMiB;
  const auto weights = static_cast<int64_t>(dtype_bytes(DType::kF32)) * parameter_count(config) / options.world;
  const int64_t usable = usable_memory_bytes();
  const int64_t left = std::max(kMiB, usable / options.local_world() - weights - kOthers);
  if (left >= wanted) return wanted;
  log_warn("kv_memory_cut", {{"wanted_bytes", wanted}, {"left_bytes", left}, {"usable_memory_bytes", usable}});
  return left;
}

// KV blocks of one rank; 0 leaves it to the device's memory. On the CPU no more than all sequences at full length need.
int32_t wanted_kv_blocks(const WorkerOptions& options, const model_spec::OptConfig& config) {
  constexpr int64_t kBlock = limits::kKvBlockTokens;
  if (options.kv_tokens > 0) return static_cast<int32_t>(options.kv_tokens / kBlock);
  if (options.device == "cuda") return 0;
  const DType cells = kv_dtype(options).value_or(DType::kF32);
  const int64_t most = options.max_sequences * ((config.max_positions + kBlock - 1) / kBlock);
  const auto block_bytes = static_cast<int64_t>(engine::kv_block_bytes(config, options.world, cells));
  const int64_t fitting = kv_memory_bytes(options, config) / block_bytes;
  return static_cast<int32_t>(std::max<int64_t>(1, std::min(fitting, most)));
}

// `text`: off, auto or always.
backend::ReluSkip relu_skip(const std::string& text) {
  if (text == "auto") return backend::ReluSkip::kMeasured;
  return text == "always" ? backend::ReluSkip::kAlways : backend::ReluSkip::kOff;
}

backend::BackendOptions backend_options(const WorkerOptions& options, DType weights) {
  const bool cuda = options.device == "cuda";
  backend::BackendOptions backend;
  backend.device = {cuda ? DeviceKind::kCuda : DeviceKind::kCpu, cuda ? options.local_rank() : 0};
  const int cores = usable_cores();
  backend.threads = options.threads > 0 ? options.threads : std::max(1, cores / options.local_world());
  backend.compute_dtype = parse_weight_dtype(options.dtype).value_or(cuda ? weights : DType::kF32);
  backend.batch_invariant = options.deterministic;
  backend.relu_skip = relu_skip(options.relu_skip);
  backend.fp8_activations = options.fp8_activations;
  backend.tuning_cache = options.tuning_cache;
  return backend;
}

// Reads the description of a model. A model of random weights without a folder has nothing but a shape.
Result<checkpoint::ModelIdentity> identify(const std::string& folder, const std::string& name) {
  if (!folder.empty()) return checkpoint::read_model_identity(folder);
  const model_spec::OptConfig* published = model_spec::find_published(name);
  if (published == nullptr) return refuse(ErrorCode::kUnknownModel, "no published model is called " + name);
  checkpoint::ModelIdentity identity;
  identity.manifest.config = *published;
  return identity;
}

engine::EngineOptions engine_options(const WorkerOptions& options, const checkpoint::Manifest& manifest,
                                     metrics::Health& health) {
  engine::EngineOptions engine;
  if (options.random_weights) {
    engine.random_config = manifest.config;
    engine.random_dtype = manifest.dtype;
    if (const quant::QuantFormatInfo* format = quant::find_quant_format(options.random_format)) {
      engine.random_format = format->format;
    }
    engine.random_up_bias = static_cast<float>(options.random_up_bias);
  } else {
    engine.checkpoint = options.model_folder();
  }
  engine.verify_checksums = options.verify_checksums;
  engine.kv_dtype = kv_dtype(options);
  engine.num_blocks = wanted_kv_blocks(options, manifest.config);
  engine.memory_fraction = options.memory_fraction;
  engine.max_sequences = options.max_sequences;
  engine.max_step_tokens = options.max_step_tokens;
  engine.on_load_progress = [&health](uint64_t, uint64_t) { health.stamp(); };  // of the draft model
  engine.on_memory_plan = [rank = options.rank](const std::string& plan) {
    log_info("memory_plan", {{"rank", rank}, {"plan", plan}});
  };
  return engine;
}

// Loaded before the large model, which takes all the memory that is left on the device.
Result<LoadedDraft> load_draft(const WorkerOptions& options, const checkpoint::ModelIdentity& model,
                               const RankProcess& process) {
  constexpr int32_t kSequences = 16;  // the most sequences for which it guesses at a time
  const bool is_name = options.random_weights && model_spec::find_published(options.draft_model) != nullptr;
  const auto identity = identify(is_name ? "" : options.draft_model, options.draft_model);
  if (!identity.ok()) return identity.refusal();
  const checkpoint::Manifest& manifest = identity.value().manifest;
  if (Status status = engine::check_draft_model(manifest.config, model.manifest.config); !status.ok()) {
    return status.refusal();
  }
  if (identity.value().vocabulary_digest != model.vocabulary_digest && !options.random_weights) {
    return refuse(ErrorCode::kBadRequest, "draft-model: its vocabulary is not that of " + options.model);
  }
  LoadedDraft draft;
  draft.backend = backend::make_backend(backend_options(options, manifest.dtype));
  draft.communicator = comm::make_solo_communicator();
  engine::EngineOptions engine = engine_options(options, manifest, process.health);
  if (!options.random_weights) engine.checkpoint = options.draft_model;
  const int64_t context = manifest.config.max_positions;
  engine.num_blocks =
      static_cast<int32_t>(kSequences * ((context + limits::kKvBlockTokens - 1) / limits::kKvBlockTokens));
  engine.max_sequences = kSequences;
  engine.on_memory_plan = {};
  auto created = engine::Engine::create(engine, *draft.backend, *draft.communicator);
  if (!created.ok()) return created.refusal();
  draft.engine = std::move(created).value();
  draft.model = std::make_unique<engine::DraftModel>(*draft.engine, *draft.communicator, options.draft_model_tokens,
                                                     process.clock);
  log_info("draft_model_loaded", {{"folder", options.draft_model}, {"backend", draft.backend->description()}});
  return draft;
}

// Refuses what another start would not change, such as a bad checkpoint. A failing device throws Error.
Result<LoadedRank> load(const WorkerOptions& options, const checkpoint::ModelIdentity& identity,
                        const RankProcess& process) {
  const checkpoint::Manifest& manifest = identity.manifest;
  LoadedRank loaded;
  try {
    loaded.backend = backend::make_backend(backend_options(options, manifest.dtype));
  } catch (const Error& error) {
    return refuse(ErrorCode::kUnavailable,
                  error.what());  // an absent device stays absent, so trying again is useless
  }
  if (options.rank == 0 && !options.draft_model.empty()) {
    auto draft = load_draft(options, identity, process);
    if (!draft.ok()) return draft.refusal();
    loaded.draft = std::move(draft).value();
  }
  loaded.communicator = make_group_communicator(options, *loaded.backend, process.registry, process.clock);
  const auto metrics = std::make_shared<LoadMetrics>(process.registry, process.health);
  engine::EngineOptions engine = engine_options(options, manifest, process.health);
  engine.on_load_progress = [metrics, process, rank = options.rank](uint64_t done, uint64_t total) {
    process.health.stamp();
    if (total <= 1) return;  // the warm-up, which only shows that it goes on
    metrics->on_progress(done, total);
    process.status.bytes_to_load[rank].store(static_cast<int64_t>(total));
    process.status.loaded_bytes[rank].store(static_cast<int64_t>(done));
  };
  auto created = engine::Engine::create(engine, *loaded.backend, *loaded.communicator);
  if (!created.ok()) return created.refusal();
  metrics->end_phase("warm_up");
  loaded.engine = std::move(created).value();
  log_info("loaded", {{"rank", options.rank},
                      {"world", options.world},
                      {"backend", loaded.backend->description()},
                      {"kv_blocks", loaded.engine->options().num_blocks},
                      {"kv_tokens", int64_t{loaded.engine->options().num_blocks} * limits::kKvBlockTokens}});
  return loaded;
}

protocol::Register registration(const WorkerOptions& options, const checkpoint::ModelIdentity& identity,
                                const engine::Engine& engine) {
  protocol::Register hello = transport::new_registration(options.name);
  hello.kind = protocol::ServiceKind::kWorker;
  const model_spec::OptConfig& config = engine.config();
  const bool serves_ids_only = identity.vocabulary_digest.empty() && !options.random_weights;
  const std::string vocabulary = serves_ids_only ? std::string(protocol::kNoVocabulary) : identity.vocabulary_digest;
  hello.models = {{options.model_name(), vocabulary, identity.manifest_digest,
                   static_cast<int32_t>(config.max_positions), static_cast<int32_t>(config.vocab_real)}};
  hello.max_sequences = options.leases_max();
  hello.slots = options.max_sequences;
  hello.kv_tokens = int64_t{engine.options().num_blocks} * limits::kKvBlockTokens;
  hello.world = options.world;
  return hello;
}

// Measures steps, of which the next may be started before one is finished.
class StepTiming {
 public:
  StepTiming(const WorkerMetrics& metrics, const Clock& clock) : metrics_(metrics), clock_(clock) {}
  void started(const batching::StepPlan& plan) { steps_.emplace_back(shape_of(plan), clock_.now()); }
  void finished() {
    const Instant now = clock_.now();
    const auto [shape, begun] = steps_.front();
    steps_.pop_front();
    metrics_.observe_step(shape, now - std::max(begun, last_end_));
    last_end_ = now;
  }

 private:
  const WorkerMetrics& metrics_;
  const Clock& clock_;
  std::deque<std::pair<StepShape, Instant>> steps_;
  Instant last_end_{};
};

// What the KV cache is, in labels.
void show_cache(metrics::Registry& registry, const WorkerOptions& options, const engine::Engine& engine) {
  registry
      .gauge("optserve_worker_cache_info", "1; the labels say what the KV cache of this rank is",
             {{"block_size", std::to_string(limits::kKvBlockTokens)},
              {"num_gpu_blocks", std::to_string(engine.options().num_blocks)},
              {"cache_dtype", options.kv_dtype}})
      .set(1);
}

int lead(const WorkerOptions& options, const checkpoint::ModelIdentity& identity, LoadedRank& rank,
         const RankProcess& process) {
  engine::GroupLeader leader(*rank.engine, *rank.communicator);
  if (!options.bench.empty()) {
    const int exit_status =
        lead_bench(options, leader, *rank.engine, *rank.backend, rank.draft.model.get(), process.clock);
    leader.stop();
    return exit_status;
  }
  WorkerMetrics metrics(process.registry, options.schedulers.size());
  show_cache(process.registry, options, *rank.engine);
  StepMark mark(process.status, 0, process.clock);
  StepTiming timing(metrics, process.clock);
  GroupSteps steps;
  steps.start = [&](const batching::StepPlan& plan) {
    mark.started();
    timing.started(plan);
    leader.start(plan);
  };
  steps.finish = [&] {
    batching::StepResult result = leader.finish();
    mark.finished();
    timing.finished();
    metrics.update_device(rank.engine->device_time());
    return result;
  };
  batching::PlannerOptions planner = planner_options(*rank.engine);
  planner.prefix_cache = options.prefix_cache;
  planner.draft_tokens = options.draft_tokens;
  EngineThread engine(planner, std::move(steps), rank.draft.model.get());
  const protocol::Register hello = registration(options, identity, *rank.engine);
  const auto show = [&](bool ready) {
    process.health.ready.store(ready);
    process.status.ready.store(ready ? 1 : 0);
    process.status.alive_at_ms.store(monotonic_ms(process.clock));
    metrics.update(engine.stats());
  };
  WorkerService service(hello, transport::link_options(hello, options.schedulers), engine, metrics, show);
  const auto watch_engine = [&](transport::ServiceLoop& loop) {
    loop.watch(engine.event_fd(),
               [&](Instant, transport::Outbox& out) { service.on_engine_events(engine.take_events(), out); });
  };
  transport::serve_scheduler(service,
                             {options.schedulers, milliseconds(options.drain_ms), watch_engine,
                              transport::load_keys(options.keys, options.schedulers), options.keys.insecure},
                             process.registry, process.health);
  engine.stop();
  leader.stop();
  return kExitOk;
}

// Keeps the metrics of a rank above 0, whose own thread waits in collectives.
class FollowerMetrics {
 public:
  FollowerMetrics(metrics::Registry& registry, const engine::Engine& engine)
      : busy_(registry.counter("optserve_worker_device_busy_seconds_total", "Time of this rank's device in steps")),
        idle_(registry.counter("optserve_worker_device_idle_seconds_total",
                               "Time of this rank's device between steps, whether there was work or not")),
        thread_([this, &engine](const std::stop_token& stop) { run(engine, stop); }) {}

 private:
  void run(const engine::Engine& engine, const std::stop_token& stop) {
    std::mutex mutex;
    std::unique_lock lock(mutex);
    do {
      const engine::Engine::DeviceTime time = engine.device_time();
      busy_.raise_to(time.busy_ms / 1000);
      idle_.raise_to(time.idle_ms / 1000);
    } while (!wake_.wait_for(lock, stop, seconds(1), [&stop] { return stop.stop_requested(); }));
  }

  metrics::Counter busy_, idle_;
  std::condition_variable_any wake_;
  std::jthread thread_;  // ends before the members above
};

int refuse_model(const Refusal& why) {
  log_error("model_refused", {{"cause", why.message}});
  write_termination_message(why.message);
  return kExitConfiguration;
}

// How the group adds its tensors.
void show_way(const comm::Communicator::Way& way, int rank, metrics::Registry& registry) {
  registry.gauge("optserve_worker_peer_memory", "1 where the ranks add their sums through memory of each other's GPUs")
      .set(way.is_peer_memory ? 1 : 0);
  if (way.name.empty()) return;
  if (way.cause.empty()) {
    log_info("collectives", {{"rank", rank}, {"way", way.name}});
  } else {
    log_warn("collectives", {{"rank", rank}, {"way", way.name}, {"cause", way.cause}});
  }
}

int run_loaded(const WorkerOptions& options, const checkpoint::ModelIdentity& identity, const RankProcess& process) {
  auto loaded = load(options, identity, process);
  if (!loaded.ok()) {
    return refuse_model(loaded.refusal());
  }
  show_way(loaded.value().communicator->way(), options.rank, process.registry);
  process.status.loaded[options.rank].store(1);
  if (options.rank == 0) return lead(options, identity, loaded.value(), process);
  process.health.started.store(true);
  process.health.ready.store(true);
  const FollowerMetrics metrics(process.registry, *loaded.value().engine);
  follow(*loaded.value().engine, *loaded.value().communicator);
  return kExitOk;
}

}  // namespace

int run_rank(const WorkerOptions& options) {
  watch_lifeline(options.lifeline_fd);
  set_termination_log(options.common.termination_log);
  init_logging("worker-rank-" + std::to_string(options.rank), options.common.log_level,
               options.common.log_format == "json" ? LogFormat::kJson : LogFormat::kText);
  check_options(options);
  confinement::enter(options.device == "cuda" ? confinement::kGpuRank : confinement::kCpuRank, options.sandbox);
  count_signals_as_one();  // the supervisor ends the group when a second one comes
  // Followers end when rank 0 tells them to, so that a drain may finish its jobs.
  if (options.rank > 0) {
    std::signal(SIGTERM, SIG_IGN);
    std::signal(SIGINT, SIG_IGN);
  }
  const GroupStatusMemory status = GroupStatusMemory::attach(options.status_fd);
  const auto identity = identify(options.model_folder(), options.model);
  if (!identity.ok()) {
    return refuse_model(identity.refusal());
  }
  metrics::Registry registry({{"model", options.model_name()}, {"rank", std::to_string(options.rank)}},
                             metrics::other_names(options.common.metrics_compat));
  const SystemClock clock;
  metrics::Health health(clock);
  if (options.rank > 0) {
    health.alive_within_ms = INT64_MAX;  // a follower waits in collectives; the supervisor watches it
  }
  health.stamp();
  const http::HealthServer http(options.common.http_address, options.common.http_port, registry, health);
  log_info("listening", {{"http", options.common.http_address + ":" + std::to_string(http.port())}});
  return run_loaded(options, identity.value(), {registry, health, *status, clock});
}

}  // namespace optserve::worker
