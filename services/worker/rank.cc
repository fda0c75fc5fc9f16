#include "worker/rank.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <memory>
#include <thread>

#include "base/build_info.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/shutdown.h"
#include "checkpoint/model_identity.h"
#include "engine/generate.h"
#include "engine/group.h"
#include "metrics/http_server.h"
#include "transport/service_loop.h"
#include "worker/engine_thread.h"
#include "worker/group_communicator.h"
#include "worker/group_status.h"
#include "worker/worker_service.h"

namespace optserve::worker {
namespace {

// Everything one rank needs to execute steps, in the order of construction.
struct LoadedRank {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Communicator> communicator;
  std::unique_ptr<Engine> engine;
};

// Ends this process when the supervisor does, should the parent-death signal have been missed.
void watch_lifeline(int fd) {
  std::thread([fd] {
    pollfd polled{fd, POLLIN, 0};
    while (poll(&polled, 1, -1) < 1) {
    }
    _exit(1);  // no destructors: peers and devices may be stuck
  }).detach();
}

// KV blocks of one rank: what was asked for, or what fits the memory, but no more than all sequences at full length
// need.
int32_t plan_kv_blocks(const WorkerOptions& options, const OptConfig& config, int64_t element_bytes) {
  constexpr int64_t kBlock = limits::kKvBlockTokens;
  const int64_t token_bytes = model_spec::kv_bytes_per_token(config, element_bytes) / options.world;
  const int64_t most = options.max_sequences * ((config.max_positions + kBlock - 1) / kBlock);
  const int64_t fitting = options.kv_memory_mb * (int64_t{1} << 20) / (token_bytes * kBlock);
  const int64_t blocks = options.kv_tokens > 0 ? options.kv_tokens / kBlock : std::min(fitting, most);
  if (blocks < 1) {
    throw Error("KV cache: one block of " + std::to_string(kBlock) + " tokens needs " +
                std::to_string(token_bytes * kBlock) + " bytes, kv-tokens and kv-memory-mb leave no room for it");
  }
  log_info("memory_plan", {{"rank", options.rank},
                           {"kv_blocks", blocks},
                           {"kv_tokens", blocks * kBlock},
                           {"kv_bytes", blocks * kBlock * token_bytes}});
  return static_cast<int32_t>(blocks);
}

// A refused checkpoint will be refused again: Refusal. A failing device throws.
Result<LoadedRank> load(const WorkerOptions& options, const checkpoint::Manifest& manifest, Health& health) {
  LoadedRank loaded;
  BackendOptions backend;
  backend.device = {options.device == "cuda" ? DeviceKind::kCuda : DeviceKind::kCpu,
                    options.device == "cuda" ? options.local_rank() : 0};
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  backend.threads = options.threads > 0 ? options.threads : std::max(1, cores / options.local_world());
  try {
    loaded.backend = make_backend(backend);
  } catch (const Error& error) {
    return refuse(ErrorCode::kUnavailable, error.what());  // an absent device stays absent: no reason to try for ever
  }
  loaded.communicator = make_group_communicator(options, nullptr);
  EngineOptions engine;
  engine.checkpoint = options.model_folder();
  engine.verify_checksums = options.verify_checksums;
  engine.num_blocks = plan_kv_blocks(options, manifest.config,
                                     static_cast<int64_t>(tensor::dtype_bytes(loaded.backend->compute_dtype())));
  engine.max_sequences = options.max_sequences;
  engine.max_step_tokens = options.max_step_tokens;
  engine.on_load_progress = [&health](uint64_t, uint64_t) { health.stamp(); };
  auto created = Engine::create(engine, *loaded.backend, *loaded.communicator);
  if (!created.ok()) return created.refusal();
  loaded.engine = std::move(created).value();
  log_info("loaded", {{"rank", options.rank}, {"world", options.world}, {"backend", loaded.backend->description()}});
  return loaded;
}

protocol::Register registration(const WorkerOptions& options, const checkpoint::ModelIdentity& identity,
                                const Engine& engine) {
  protocol::Register hello;
  hello.instance = InstanceId::random();
  hello.kind = protocol::ServiceKind::kWorker;
  hello.name = host_and_pid();
  hello.build = build_version();
  const OptConfig& config = engine.config();
  hello.models = {{options.model_name(), identity.vocabulary_digest, identity.manifest_digest,
                   static_cast<int32_t>(config.max_positions), static_cast<int32_t>(config.vocab_real)}};
  hello.max_sequences = options.max_sequences;
  hello.kv_tokens = int64_t{engine.options().num_blocks} * limits::kKvBlockTokens;
  hello.world = options.world;
  return hello;
}

// Adds to the service what is visible from outside the process: health, the supervisor's page, metrics.
class VisibleService final : public WorkerService {
 public:
  VisibleService(protocol::Register hello, const transport::SchedulerLinkOptions& link, EngineThread& engine,
                 WorkerMetrics& metrics, Health& health, GroupStatus& status)
      : WorkerService(std::move(hello), link, engine, metrics),
        engine_(engine),
        metrics_(metrics),
        health_(health),
        status_(status) {}

  void on_tick(Instant now, transport::Outbox& out) override {
    WorkerService::on_tick(now, out);
    const bool ready = is_registered() && !is_draining();
    health_.ready.store(ready);
    status_.ready.store(ready ? 1 : 0);
    status_.alive_at_ms.store(monotonic_ms());
    metrics_.update(engine_.stats());
  }

 private:
  EngineThread& engine_;
  WorkerMetrics& metrics_;
  Health& health_;
  GroupStatus& status_;
};

int lead(const WorkerOptions& options, const checkpoint::ModelIdentity& identity, LoadedRank& rank, Registry& registry,
         Health& health, GroupStatus& status) {
  GroupLeader leader(*rank.engine, *rank.communicator);
  EngineThread engine(planner_options(*rank.engine), [&](const batching::StepPlan& plan) {
    const BusyMark busy(status, 0);
    return leader.lead(plan);
  });
  WorkerMetrics metrics(registry);
  const protocol::Register hello = registration(options, identity, *rank.engine);
  transport::SchedulerLinkOptions link;
  link.seed = std::hash<Id128>{}(hello.instance);
  VisibleService service(hello, link, engine, metrics, health, status);
  const SystemClock clock;
  transport::ServiceLoop loop(service, clock, registry);
  loop.set_health(&health);
  transport::PortOptions port;
  port.message_bytes_max = limits::kInternalMessageBytesMax;
  loop.connect(options.scheduler, port);
  loop.watch(engine.event_fd(),
             [&](Instant, transport::Outbox& out) { service.on_engine_events(engine.take_events(), out); });
  health.started.store(true);
  loop.run(milliseconds(options.drain_ms));
  engine.stop();
  leader.stop();
  return kExitDrained;
}

int run_loaded(const WorkerOptions& options, const checkpoint::ModelIdentity& identity, Registry& registry,
               Health& health, GroupStatus& status) {
  auto loaded = load(options, identity.manifest, health);
  if (!loaded.ok()) {
    log_error("model_refused", {{"cause", loaded.refusal().message}});
    return kExitConfiguration;
  }
  status.loaded[options.rank].store(1);
  if (options.rank == 0) return lead(options, identity, loaded.value(), registry, health, status);
  health.started.store(true);
  health.ready.store(true);
  follow(*loaded.value().engine, *loaded.value().communicator);
  return kExitDrained;
}

}  // namespace

int run_rank(const WorkerOptions& options) {
  watch_lifeline(options.lifeline_fd);
  init_logging("worker-rank-" + std::to_string(options.rank), options.common.log_level,
               options.common.log_format == "json" ? LogFormat::kJson : LogFormat::kText);
  // Followers end when rank 0 tells them to, so that a drain may finish its jobs.
  if (options.rank > 0) {
    std::signal(SIGTERM, SIG_IGN);
    std::signal(SIGINT, SIG_IGN);
  }
  const GroupStatusMemory status = GroupStatusMemory::attach(options.status_fd);
  const auto identity = checkpoint::read_model_identity(options.model_folder());
  if (!identity.ok()) {
    log_error("model_refused", {{"cause", identity.refusal().message}});
    return kExitConfiguration;
  }
  Registry registry;
  Health health;
  if (options.rank > 0)
    health.alive_within_ms = INT64_MAX;  // a follower waits in collectives; the supervisor watches it
  health.stamp();
  const HttpServer http(options.common.http_address, options.common.http_port, registry, health);
  log_info("listening", {{"http", options.common.http_address + ":" + std::to_string(http.port())}});
  return run_loaded(options, identity.value(), registry, health, *status);
}

}  // namespace optserve::worker
