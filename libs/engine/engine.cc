#include "engine/engine.h"

#include <algorithm>
#include <optional>

#include "checkpoint/reader.h"
#include "engine/kv_cache.h"
#include "engine/models/opt.h"
#include "engine/sampler.h"
#include "engine/slots.h"
#include "engine/weight_loader.h"
#include "engine/weight_source.h"
#include "engine/workspace.h"

namespace optserve {

namespace {

using namespace engine;

constexpr int64_t kScoredRowsMax = 128;  // logits rows of one product: bounds the memory of prompt log-probabilities

WorkspaceSizes workspace_sizes(const OptConfig& config, const EngineOptions& options, int64_t world) {
  WorkspaceSizes sizes;
  sizes.rows_max = options.max_step_tokens;
  sizes.hidden = config.hidden;
  sizes.embed = config.embed_dim;
  sizes.qkv = 3 * config.hidden / world;
  sizes.heads_out = config.hidden / world;
  sizes.ffn = config.ffn / world;
  sizes.vocab_local = config.vocab / world;
  sizes.world = world;
  sizes.logit_rows_max =
      std::max<int64_t>(options.max_sequences, std::min<int64_t>(options.max_step_tokens, kScoredRowsMax));
  return sizes;
}

SlotLimits slot_limits(const OptConfig& config, const EngineOptions& options) {
  return {options.max_sequences, options.max_step_tokens, options.num_blocks,
          static_cast<int32_t>(config.max_positions)};
}

class OptEngine final : public Engine {
 public:
  OptEngine(const EngineOptions& options, const WeightSource& source, uint64_t digest, Backend& backend,
            Communicator& communicator)
      : options_(options),
        config_(source.config()),
        digest_(digest),
        cache_(backend, config_, options.num_blocks, communicator.world()),
        workspace_(backend, workspace_sizes(config_, options, communicator.world())),
        exec_{backend, communicator, workspace_},
        slots_(backend, slot_limits(config_, options)),
        sampler_(backend, config_, slot_limits(config_, options)) {
    WeightLoader loader(source, backend, communicator.rank(), communicator.world(), options.on_load_progress);
    model_.emplace(loader, cache_);
    loader.expect_all_taken();
  }

  const OptConfig& config() const override { return config_; }
  const EngineOptions& options() const override { return options_; }
  uint64_t manifest_digest() const override { return digest_; }

  batching::StepResult run(const batching::StepPlan& plan) override {
    const Batch& batch = slots_.begin_step(plan);
    if (batch.num_tokens == 0) {
      batching::StepResult nothing;
      nothing.step = plan.step;
      return nothing;
    }
    const Tensor hidden = model_->forward(exec_, batch);
    return sampler_.run(exec_, *model_, hidden, plan, slots_);
  }

 private:
  EngineOptions options_;
  OptConfig config_;
  uint64_t digest_;
  KvCache cache_;
  Workspace workspace_;
  Exec exec_;
  Slots slots_;
  Sampler sampler_;
  std::optional<OptModel> model_;
};

Status check_options(const EngineOptions& options, const OptConfig& config, int world) {
  if (options.num_blocks < 1 || options.max_sequences < 1 || options.max_step_tokens < options.max_sequences) {
    return refuse(ErrorCode::kBadRequest,
                  "engine needs at least 1 KV block, 1 sequence and as many step tokens as sequences; got " +
                      std::to_string(options.num_blocks) + ", " + std::to_string(options.max_sequences) + " and " +
                      std::to_string(options.max_step_tokens));
  }
  if (!is_legal_world(config, world)) {
    return refuse(ErrorCode::kBadRequest, "model " + config.name + " cannot be split over " + std::to_string(world) +
                                              " ranks; possible are " + legal_worlds_text(config));
  }
  return ok_status();
}

// Ranks that read different files would compute nonsense together.
void expect_same_model(Communicator& communicator, uint64_t digest) {
  std::vector<uint8_t> bytes;
  for (int shift = 0; shift < 64; shift += 8) bytes.push_back(static_cast<uint8_t>(digest >> shift));
  const std::vector<uint8_t> mine = bytes;
  communicator.broadcast_bytes(bytes, 0);
  if (bytes == mine) return;
  const std::string reason = "rank " + std::to_string(communicator.rank()) + " has another manifest than rank 0";
  communicator.abort(reason);
  throw Error(reason);
}

Result<std::unique_ptr<Engine>> load(const EngineOptions& options, Backend& backend, Communicator& communicator) {
  const int rank = communicator.rank(), world = communicator.world();
  if (options.checkpoint.empty()) {
    if (Status status = validate(options.random_config); !status.ok()) return status.refusal();
    if (Status status = check_options(options, options.random_config, world); !status.ok()) return status.refusal();
    const auto source = make_random_source(options.random_config, options.random_seed, options.random_dtype);
    return std::unique_ptr<Engine>(std::make_unique<OptEngine>(options, *source, 0, backend, communicator));
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
  return std::unique_ptr<Engine>(
      std::make_unique<OptEngine>(options, *source, checkpoint.manifest_digest(), backend, communicator));
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::create(const EngineOptions& options, Backend& backend,
                                               Communicator& communicator) {
  auto engine = load(options, backend, communicator);
  if (!engine.ok()) {
    if (communicator.world() > 1) communicator.abort(engine.refusal().message);
    return engine;
  }
  expect_same_model(communicator, engine.value()->manifest_digest());
  communicator.barrier();
  return engine;
}

}  // namespace optserve
