#include "engine/engine.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <optional>

#include "base/input_check.h"
#include "base/limits.h"
#include "checkpoint/reader.h"
#include "engine/kv_cache.h"
#include "engine/memory_plan.h"
#include "engine/models/opt.h"
#include "engine/sampler.h"
#include "engine/slots.h"
#include "engine/weight_loader.h"
#include "engine/weight_source.h"
#include "engine/workspace.h"

namespace optserve::engine {

namespace {

DType kv_dtype(const EngineOptions& options, const backend::Backend& backend) {
  return options.kv_dtype.value_or(backend.compute_dtype());
}

constexpr int64_t kScoredRowsMax =
    128;  // rows of one product of logits; bounds the memory for log-probabilities of prompts

SlotLimits slot_limits(const model_spec::OptConfig& config, const EngineOptions& options) {
  return {options.max_sequences, options.max_step_tokens, options.num_blocks,
          static_cast<int32_t>(config.max_positions)};
}

WorkspaceSizes workspace_sizes(const model_spec::OptConfig& config, const EngineOptions& options,
                               const backend::Backend& backend, int64_t world) {
  const int64_t sequences = backend.padded_rows(options.max_sequences);
  WorkspaceSizes sizes = workspace_widths(config, world);
  sizes.rows_max = std::max<int64_t>(options.max_step_tokens, sequences);
  sizes.logit_rows_max = std::max(sequences, std::min<int64_t>(options.max_step_tokens, kScoredRowsMax));
  return sizes;
}

// A step that has been started, and what rank 0 will report about it.
struct StartedStep {
  struct Item {
    int32_t slot = 0;
    int32_t start = 0;
    int32_t draws = 0;
    std::vector<TokenId> targets;
    int32_t best = 0;         // number of best tokens to report beside the drawn one
    int32_t target_best = 0;  // the same beside each target
  };
  uint64_t step = 0;
  std::vector<Item> items;
  backend::Mark begun = 0, done = 0;
  size_t turn = 0;
};

class OptEngine final : public Engine {
 public:
  OptEngine(const EngineOptions& options, const WeightSource& source, uint64_t digest, backend::Backend& backend,
            comm::Communicator& communicator)
      : options_(options),
        config_(source.config()),
        digest_(digest),
        cache_(backend, config_, kv_dtype(options, backend), options.num_blocks, communicator.world()),
        workspace_(backend, workspace_sizes(config_, options, backend, communicator.world())),
        exec_{backend, communicator, workspace_},
        slots_(backend, slot_limits(config_, options), config_),
        sampler_(backend, backend.padded_rows(options.max_sequences), options.max_step_tokens) {
    WeightLoader loader(source, backend, communicator.rank(), communicator.world(), options.on_load_progress);
    model_.emplace(loader, cache_);
    loader.expect_all_taken();
    backend.synchronize();
  }

  // Chooses algorithms and records graphs for every size of a decoding step, largest first, so that scratch is sized
  // once. Every rank does the same.
  void warm_up() {
    if (!exec_.backend.runs_ahead()) return;
    std::vector<int64_t> sizes;
    for (int64_t rows = 1; rows <= options_.max_sequences; rows = sizes.back() + 1) {
      sizes.push_back(exec_.backend.padded_rows(rows));
    }
    std::ranges::reverse(sizes);
    for (const int64_t rows : sizes) {
      for (const uint32_t features : {uint32_t{0}, uint32_t{sampling::kSampleDraw | sampling::kSampleTruncate}}) {
        for (int round = 0; round < 2; ++round) {  // the first round runs the step, the second records it
          const Batch& batch = slots_.padding_step(rows, features);
          exec_.backend.capture_or_run(*batch.graph_key, [&] { execute(batch); });
          exec_.backend.synchronize();
        }
      }
      if (options_.on_load_progress) options_.on_load_progress(1, 1);
    }
  }

  ~OptEngine() override { exec_.backend.drop_recordings(); }

  const model_spec::OptConfig& config() const override { return config_; }
  const EngineOptions& options() const override { return options_; }
  uint64_t manifest_digest() const override { return digest_; }
  int in_flight() const override { return in_flight_; }
  DeviceTime device_time() const override { return {busy_ms_, idle_ms_}; }
  int depth() const override { return exec_.backend.runs_ahead() ? kStepsInFlight : 1; }

  void start(const batching::StepPlan& plan) override {
    check(in_flight_ < depth(), "more steps are started than finished");
    StartedStep& started = ring_[next_];
    started.step = plan.step;
    started.turn = next_;
    next_ = (next_ + 1) % kStepsInFlight;
    ++in_flight_;
    started.begun = exec_.backend.mark();
    const Batch& batch = slots_.begin_step(plan);
    note(plan, started);
    if (batch.num_tokens > 0) {
      if (batch.graph_key) {
        exec_.backend.capture_or_run(*batch.graph_key, [&] { execute(batch); });
      } else {
        execute(batch);
      }
      sampler_.copy_results(exec_.backend, batch, started.turn);
    }
    started.done = exec_.backend.mark();
  }

  batching::StepResult finish() override {
    check(in_flight_ > 0, "no step is started");
    const StartedStep& started = ring_[(next_ + kStepsInFlight - static_cast<size_t>(in_flight_)) % kStepsInFlight];
    --in_flight_;
    exec_.backend.wait(started.done);
    exec_.communicator.throw_if_given_up();
    busy_ms_ = busy_ms_ + exec_.backend.ms_between(started.begun, started.done);
    if (last_done_) idle_ms_ = idle_ms_ + exec_.backend.ms_between(*last_done_, started.begun);
    last_done_ = started.done;
    batching::StepResult result;
    result.step = started.step;
    if (exec_.communicator.rank() == 0) report(started, result);
    return result;
  }

 private:
  void note(const batching::StepPlan& plan, StartedStep& started) const {
    started.items.resize(plan.work.size());
    for (size_t i = 0; i < plan.work.size(); ++i) {
      const batching::SlotWork& work = plan.work[i];
      const int32_t best = work.sample ? std::max(slots_.sampling(work.slot).logprobs, 0) : 0;
      started.items[i] = {work.slot, work.start, work.num_draws(), work.logprob_targets, best, work.target_best};
    }
  }

  void execute(const Batch& batch) {
    const Tensor hidden = model_->forward(exec_, batch);
    sampler_.score(exec_, *model_, hidden, batch);
    sampler_.draw(exec_, *model_, hidden, batch);
  }

  void report(const StartedStep& started, batching::StepResult& result) const {
    const Sampler::Results drawn = sampler_.results(started.turn);
    size_t draws = 0, scores = 0;
    for (const StartedStep::Item& item : started.items) {
      if (!item.targets.empty()) report_scores(item, drawn, scores, result);
      for (int32_t i = 0; i < item.draws; ++i) report_draw(item, drawn, draws++, result);
    }
  }

  static void report_scores(const StartedStep::Item& item, const Sampler::Results& drawn, size_t& scores,
                            batching::StepResult& result) {
    batching::SlotLogprobs& slot = result.logprobs.emplace_back();
    slot.slot = item.slot;
    slot.start = item.start;
    for (const TokenId target : item.targets) {
      slot.logprobs.push_back(target < 0 ? 0.0f : drawn.scores[scores]);
      if (item.target_best > 0) slot.best.emplace_back();
      if (target < 0) continue;
      const size_t row = scores++ * static_cast<size_t>(limits::kTopLogprobsMax);
      for (size_t i = 0; i < static_cast<size_t>(item.target_best) && drawn.score_best_ids[row + i] >= 0; ++i) {
        slot.best.back().push_back({drawn.score_best_ids[row + i], drawn.score_best_logprobs[row + i]});
      }
    }
  }

  static void report_draw(const StartedStep::Item& item, const Sampler::Results& drawn, size_t draw,
                          batching::StepResult& result) {
    const TokenId id = drawn.ids[draw];
    batching::SampledToken& sampled = result.sampled.emplace_back();
    sampled = {item.slot, std::max(id, 0), drawn.logprobs[draw], id >= 0};
    for (int32_t i = 0; i < item.best; ++i) {
      const size_t at = draw * static_cast<size_t>(limits::kTopLogprobsMax) + static_cast<size_t>(i);
      if (drawn.best_ids[at] < 0) break;
      sampled.best.push_back({drawn.best_ids[at], drawn.best_logprobs[at]});
    }
  }

  EngineOptions options_;
  model_spec::OptConfig config_;
  uint64_t digest_;
  KvCache cache_;
  Workspace workspace_;
  Exec exec_;
  Slots slots_;
  Sampler sampler_;
  std::optional<OptModel> model_;
  std::array<StartedStep, kStepsInFlight> ring_;
  size_t next_ = 0;
  int in_flight_ = 0;
  std::atomic<double> busy_ms_ = 0, idle_ms_ = 0;  // written only by the thread that finishes steps
  std::optional<backend::Mark> last_done_;
};

Status check_options(const EngineOptions& options, const model_spec::OptConfig& config, int world) {
  for (const Status& status :
       {check_range("num_blocks", options.num_blocks, 0, INT32_MAX),
        check_range("max_sequences", options.max_sequences, 1, INT32_MAX),
        check_range("max_step_tokens", options.max_step_tokens, options.max_sequences, INT32_MAX)}) {
    if (!status.ok()) return status;
  }
  if (options.kv_dtype && *options.kv_dtype != DType::kI8) {
    return refuse(ErrorCode::kBadRequest, "the KV cache has cells of the compute type or of I8, not of " +
                                              std::string(dtype_name(*options.kv_dtype)));
  }
  if (!is_legal_world(config, world)) {
    return refuse(ErrorCode::kBadRequest, "model " + config.name + " cannot be split over " + std::to_string(world) +
                                              " ranks; possible are " + legal_worlds_text(config));
  }
  return ok_status();
}

// Ranks with different checkpoints would together compute nonsense.
void expect_same_model(comm::Communicator& communicator, uint64_t digest) {
  std::vector<uint8_t> bytes;
  for (int shift = 0; shift < 64; shift += 8) bytes.push_back(static_cast<uint8_t>(digest >> shift));
  const std::vector<uint8_t> mine = bytes;
  communicator.broadcast_bytes(bytes, 0);
  if (bytes == mine) return;
  const std::string reason = "rank " + std::to_string(communicator.rank()) + " has another manifest than rank 0";
  communicator.abort(reason);
  throw Error(reason);
}

// Sets num_blocks if it is to be chosen by the memory of the device.
Status plan_memory(const WeightSource& source, backend::Backend& backend, comm::Communicator& communicator,
                   EngineOptions& options) {
  const model_spec::OptConfig& config = source.config();
  const auto memory = backend.memory();
  const int64_t world = communicator.world();
  const SlotLimits limits = slot_limits(config, options);
  MemoryNeeds needs;
  needs.weights = weight_bytes(source, communicator.world(), backend);
  needs.workspace = workspace_sizes(config, options, backend, world).bytes(dtype_bytes(backend.compute_dtype())) +
                    slots_bytes(limits, backend.padded_rows(options.max_sequences));
  needs.kv_block = kv_block_bytes(config, world, kv_dtype(options, backend));
  if (!memory) {
    if (options.num_blocks > 0) return ok_status();
    return refuse(ErrorCode::kBadRequest,
                  "the number of KV blocks must be given: this device has no memory of its own");
  }
  const int64_t most = options.num_blocks > 0 ? options.num_blocks : options.max_sequences * limits.blocks_max();
  const int64_t least = options.num_blocks > 0 ? options.num_blocks : std::min<int64_t>(most, limits.blocks_max());
  const auto blocks = plan_kv_blocks(needs, *memory, options.memory_fraction, least, most);
  if (!blocks.ok()) return blocks.refusal();
  options.num_blocks = static_cast<int32_t>(communicator.all_reduce_min(blocks.value()));
  if (options.on_memory_plan) {
    options.on_memory_plan(describe(needs, *memory, options.memory_fraction, options.num_blocks));
  }
  return ok_status();
}

Result<std::unique_ptr<Engine>> build(EngineOptions options, const WeightSource& source, uint64_t digest,
                                      backend::Backend& backend, comm::Communicator& communicator) {
  if (Status status = plan_memory(source, backend, communicator, options); !status.ok()) {
    return status.refusal();
  }
  auto engine = std::make_unique<OptEngine>(options, source, digest, backend, communicator);
  if (options.warm_up) {
    communicator.barrier();
    engine->warm_up();
  }
  return std::unique_ptr<Engine>(std::move(engine));
}

Result<std::unique_ptr<Engine>> load(const EngineOptions& options, backend::Backend& backend,
                                     comm::Communicator& communicator) {
  const int rank = communicator.rank(), world = communicator.world();
  if (options.checkpoint.empty()) {
    if (Status status = validate(options.random_config); !status.ok()) return status.refusal();
    if (Status status = check_options(options, options.random_config, world); !status.ok()) return status.refusal();
    const auto source = make_random_source(options.random_config, options.random_seed, options.random_dtype,
                                           options.random_format, options.random_up_bias);
    return build(options, *source, 0, backend, communicator);
  }
  auto reader = checkpoint::CheckpointReader::open(options.checkpoint);
  if (!reader.ok()) return reader.refusal();
  const checkpoint::CheckpointReader& checkpoint = reader.value();
  if (Status status = check_options(options, checkpoint.config(), world); !status.ok()) return status.refusal();
  if (Status status = checkpoint.check_world(world); !status.ok()) return status.refusal();
  if (options.verify_checksums) {
    if (Status status = checkpoint.verify_checksums(rank, world, 1); !status.ok()) return status.refusal();
  }
  const auto source = make_checkpoint_source(checkpoint);
  return build(options, *source, checkpoint.manifest_digest(), backend, communicator);
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::create(const EngineOptions& options, backend::Backend& backend,
                                               comm::Communicator& communicator) {
  auto engine = load(options, backend, communicator);
  if (!engine.ok()) {
    if (communicator.world() > 1) communicator.abort(engine.refusal().message);
    return engine;
  }
  expect_same_model(communicator, engine.value()->manifest_digest());
  communicator.barrier();
  return engine;
}

}  // namespace optserve::engine
