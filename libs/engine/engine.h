// The engine of one rank: loads its part of a sharded checkpoint and executes step plans. It knows no sockets, requests
// or text.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "backend/backend.h"
#include "batching/step_plan.h"
#include "comm/communicator.h"
#include "model_spec/opt_config.h"
#include "quant/quant_format.h"

namespace optserve::engine {

using model_spec::OptConfig;

struct EngineOptions {
  std::string checkpoint;               // folder of a sharded checkpoint; empty: random weights
  model_spec::OptConfig random_config;  // shape of the random model
  uint64_t random_seed = 0;
  DType random_dtype = DType::kF16;                      // the type to which its weights are rounded
  std::optional<quant::QuantFormat> random_format = {};  // of its large matrices; none: random_dtype
  float random_up_bias = 0;                              // see make_random_source()
  bool verify_checksums = true;
  std::optional<DType> kv_dtype;  // of the KV cache's cells: I8, or unset for the compute type
  int32_t num_blocks = 0;         // KV blocks of 16 tokens; 0: as many as the device has room for
  double memory_fraction = 0.92;  // share of the device's memory that may be in use, the KV cache included
  int32_t max_sequences = 0;
  int32_t max_step_tokens = 0;
  bool warm_up = true;  // prepare every size of step at the start, on devices that gain by it
  std::function<void(uint64_t done, uint64_t total)> on_load_progress;  // bytes; may be empty
  std::function<void(const std::string& plan)> on_memory_plan;  // called when the memory is divided; may be empty
};

class Engine {
 public:
  // Loads weights and allocates everything that a step needs, then waits for the other ranks. Bad checkpoints and
  // options are refused, and the group is aborted so that the other ranks do not wait. A failing device throws Error.
  // `backend` and `communicator` must outlive the engine.
  static Result<std::unique_ptr<Engine>> create(const EngineOptions& options, backend::Backend& backend,
                                                comm::Communicator& communicator);
  virtual ~Engine() = default;

  virtual const model_spec::OptConfig& config() const = 0;
  virtual const EngineOptions& options() const = 0;  // num_blocks is what was planned
  virtual uint64_t manifest_digest() const = 0;      // first 8 bytes of the manifest's SHA-256; 0 for random weights
  // Starts a step, as every rank must. It may still run when the call returns. At most depth() steps may be started and
  // not finished.
  virtual void start(const batching::StepPlan& plan) = 0;
  // Waits for the oldest started step. The result is filled in only on rank 0.
  virtual batching::StepResult finish() = 0;
  virtual int in_flight() const = 0;  // started and not finished
  // How much time the device has spent in the finished steps and between them, whether there was work or not. May be
  // called on any thread.
  struct DeviceTime {
    double busy_ms = 0;
    double idle_ms = 0;
  };
  virtual DeviceTime device_time() const = 0;  // zero on devices that execute a step while it is started
  virtual int depth() const = 0;               // 1 on such devices, otherwise kStepsInFlight
  static constexpr int kStepsInFlight = 2;
};

}  // namespace optserve::engine
