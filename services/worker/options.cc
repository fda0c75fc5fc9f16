#include "worker/options.h"

#include <charconv>
#include <optional>

#include "base/error.h"
#include "base/limits.h"
#include "model_spec/opt_config.h"
#include "quant/quant_format.h"
#include "transport/scheduler_session.h"
#include "workload/bench_spec.h"

namespace optserve::worker {
namespace {

constexpr const char* kRendezvousPort = "29500";  // torchrun's

std::optional<int> to_number(const std::string& text) {
  int number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && stop == end && number >= 0 ? std::optional(number) : std::nullopt;
}

}  // namespace

std::string WorkerOptions::model_name() const { return model.substr(0, model.find('=')); }

std::string WorkerOptions::model_folder() const {
  const size_t equals = model.find('=');
  return equals == std::string::npos ? std::string() : model.substr(equals + 1);
}

std::optional<tensor::DType> compute_dtype(std::string_view name) {
  if (name == "fp32") return tensor::DType::kF32;
  if (name == "fp16") return tensor::DType::kF16;
  if (name == "bf16") return tensor::DType::kBF16;
  return std::nullopt;
}

std::optional<tensor::DType> kv_dtype(std::string_view name) {
  const QuantFormatInfo& int8 = info(QuantFormat::kInt8);
  if (name == int8.name) return int8.storage;
  return std::nullopt;
}

std::string WorkerOptions::rendezvous_host() const {
  const std::string host = rendezvous.substr(0, rendezvous.rfind(':'));
  const bool in_brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';  // IPv6
  return in_brackets ? host.substr(1, host.size() - 2) : host;
}

int WorkerOptions::rendezvous_port() const {
  const size_t colon = rendezvous.rfind(':');
  const auto port = colon == std::string::npos ? std::nullopt : to_number(rendezvous.substr(colon + 1));
  return port && *port <= 65'535 ? *port : 0;
}

void add_options(ConfigParser& parser, WorkerOptions& options) {
  add_common_options(parser, options.common);
  parser.add("rank-http-port", options.rank_http_port,
             "Port of rank 0's metrics and health, the other ranks follow; 0: free ports; -1: http-port + 1");
  parser.add("scheduler", options.schedulers,
             "Service endpoint of a scheduler; repeatable: the service registers with all of them");
  parser.add("model", options.model, "NAME=FOLDER: the name clients use and a sharded checkpoint");
  parser.add("world", options.world, "Tensor-parallel size: processes that share the model");
  parser.add("device", options.device, "cpu or cuda");
  parser.add("dtype", options.dtype,
             "Type of activations: fp32, fp16 or bf16; auto: fp32 on the CPU, else that of the weights");
  parser.add("kv-dtype", options.kv_dtype,
             "Type of the KV cache: int8, which holds about twice as many tokens as fp16; auto: as dtype");
  parser.add("threads", options.threads, "Threads per rank on the CPU; 0: cores / world");
  parser.add("max-sequences", options.max_sequences, "Generations at a time");
  parser.add("lease-ahead", options.lease_ahead,
             "Generations held beyond those, which take a free slot at once; -1: a quarter of max-sequences");
  parser.add("kv-tokens", options.kv_tokens,
             "Tokens that the KV cache holds; 0: what a GPU has room for, from kv-memory-mb on the CPU");
  parser.add("kv-memory-mb", options.kv_memory_mb, "Memory per rank for the KV cache on the CPU when kv-tokens is 0");
  parser.add("memory-fraction", options.memory_fraction, "Part of a GPU's memory that may be in use");
  parser.add("deterministic", options.deterministic,
             "The same tokens for a job whatever runs beside it, on GPUs too, which costs speed; CPUs always do so");
  parser.add("tuning-cache", options.tuning_cache,
             "Folder that keeps which GPU algorithms were fastest; empty: nowhere");
  parser.add("random-weights", options.random_weights,
             "Weights at random; model is then NAME=FOLDER, whose manifest gives the shape, or a published name");
  parser.add("max-step-tokens", options.max_step_tokens, "Rows of one engine step; long prompts are cut into chunks");
  parser.add("prefix-cache", options.prefix_cache,
             "Keep the KV cache of prompts and outputs as long as there is room, for prompts that begin alike");
  parser.add("draft-tokens", options.draft_tokens,
             "Most tokens guessed at a time where a text repeats itself, while few generations run; 0: none");
  parser.add("draft-model", options.draft_model,
             "Folder of a small model's checkpoint of the same vocabulary, which rank 0 guesses with elsewhere");
  parser.add("draft-model-tokens", options.draft_model_tokens, "Most tokens that it guesses at a time");
  parser.add("step-deadline-ms", options.step_deadline_ms, "A step that takes longer ends the group");
  parser.add("load-deadline-ms", options.load_deadline_ms, "Time for loading the weights");
  parser.add("drain-ms", options.drain_ms, "Time for running jobs after SIGTERM");
  parser.add("verify-checksums", options.verify_checksums, "Check every shard against the manifest while loading");
  parser.add("bench", options.bench, "Run a benchmark instead of serving, as 'optserve bench' does: JSON or a file");
  parser.add("nodes", options.nodes, "Hosts that share the group, with a worker each; world is the sum over all");
  parser.add("node-rank", options.node_rank,
             "Which of the hosts this is, from 0; -1: GROUP_RANK, LWS_WORKER_INDEX or JOB_COMPLETION_INDEX");
  parser.add(
      "rendezvous", options.rendezvous,
      "HOST:PORT of host 0, where the ranks of several hosts meet; empty: MASTER_ADDR or LWS_LEADER_ADDRESS, and "
      "MASTER_PORT or 29500");
  parser.add("rank", options.rank, "Set by the supervisor");
  parser.add("group-fd", options.group_fd, "Set by the supervisor");
  parser.add("group-bytes", options.group_bytes, "Set by the supervisor");
  parser.add("status-fd", options.status_fd, "Set by the supervisor");
  parser.add("lifeline-fd", options.lifeline_fd, "Set by the supervisor");
}

std::vector<std::string> command_line(WorkerOptions options) {
  ConfigParser parser("optserve-worker", "");
  add_options(parser, options);
  std::vector<std::string> arguments{"optserve-worker"};
  for (const auto& [name, value] : parser.effective()) {
    if (name != "scheduler" && !value.empty()) arguments.push_back("--" + name + "=" + value);
  }
  for (const std::string& scheduler : options.schedulers) arguments.push_back("--scheduler=" + scheduler);
  return arguments;
}

void complete_from_environment(WorkerOptions& options,
                               const std::function<std::string(const std::string& name)>& variable) {
  const auto first_of = [&](std::initializer_list<const char*> names) {
    for (const char* name : names) {
      if (std::string value = variable(name); !value.empty()) return value;
    }
    return std::string();
  };
  if (options.nodes <= 1) {
    if (options.node_rank == -1) options.node_rank = 0;
    return;
  }
  if (options.node_rank == -1) {
    const auto given = to_number(first_of({"GROUP_RANK", "LWS_WORKER_INDEX", "JOB_COMPLETION_INDEX"}));
    options.node_rank = given.value_or(-1);
  }
  if (options.rendezvous.empty()) {
    const std::string host = first_of({"MASTER_ADDR", "LWS_LEADER_ADDRESS"}), port = variable("MASTER_PORT");
    const bool bare_ipv6 = host.find(':') != std::string::npos && host.front() != '[';
    if (!host.empty()) {
      options.rendezvous = (bare_ipv6 ? "[" + host + "]" : host) + ":" + (port.empty() ? kRendezvousPort : port);
    }
  }
}

namespace {
void require(bool condition, const std::string& message) {
  if (!condition) throw Error(message);
}
void require_range(const char* name, int64_t value, int64_t min, int64_t max) {
  require(value >= min && value <= max, std::string(name) + ": expected " + std::to_string(min) + " to " +
                                            std::to_string(max) + ", found " + std::to_string(value));
}
}  // namespace

void check_options(const WorkerOptions& options) {
  transport::check_schedulers(options.schedulers);
  const bool has_shape = !options.model_folder().empty() ||
                         (options.random_weights && model_spec::find_published(options.model) != nullptr);
  const bool named =
      has_shape && !options.model_name().empty() && options.model_name().size() <= limits::kModelNameBytesMax;
  require(named, "model: expected NAME=FOLDER, or a published name with random-weights, found '" + options.model + "'");
  require(options.dtype == "auto" || compute_dtype(options.dtype).has_value(),
          "dtype: expected auto, fp32, fp16 or bf16, found '" + options.dtype + "'");
  require(options.kv_dtype == "auto" || kv_dtype(options.kv_dtype).has_value(),
          "kv-dtype: expected auto or int8, found '" + options.kv_dtype + "'");
  require(options.memory_fraction > 0 && options.memory_fraction <= 1,
          "memory-fraction: expected above 0 to 1, found " + std::to_string(options.memory_fraction));
  require(options.device == "cpu" || options.device == "cuda",
          "device: expected cpu or cuda, found '" + options.device + "'");
  require_range("rank-http-port", options.rank_http_port, -1, 65'535);
  require_range("world", options.world, 1, limits::kWorldSizeMax);
  require_range("threads", options.threads, 0, 1024);
  require_range("max-sequences", options.max_sequences, 1, 4096);
  require_range("lease-ahead", options.lease_ahead, -1, 4096);
  require_range("max-step-tokens", options.max_step_tokens, options.max_sequences, 1 << 20);
  require_range("kv-tokens", options.kv_tokens, 0, int64_t{1} << 31);
  require_range("kv-memory-mb", options.kv_memory_mb, 1, int64_t{1} << 20);
  require_range("draft-model-tokens", options.draft_model_tokens, 1, 15);
  require_range("step-deadline-ms", options.step_deadline_ms, 100, 3'600'000);
  require_range("load-deadline-ms", options.load_deadline_ms, 1'000, 24 * 3'600'000);
  require_range("drain-ms", options.drain_ms, 0, 3'600'000);
  if (!options.bench.empty()) {
    const auto spec = workload::read_bench_spec(options.bench);
    require(spec.ok(), spec.ok() ? "" : "bench: " + spec.refusal().message);
  }
  require_range("nodes", options.nodes, 1, options.world);
  require(options.world % options.nodes == 0, "nodes: expected a divisor of world " + std::to_string(options.world) +
                                                  ", found " + std::to_string(options.nodes));
  require_range("node-rank", options.node_rank, 0, options.nodes - 1);
  require(options.nodes == 1 || (options.rendezvous_port() > 0 && !options.rendezvous_host().empty()),
          "rendezvous: expected HOST:PORT, found '" + options.rendezvous + "'");
  require(
      options.rank == -1 || (options.local_rank() >= 0 && options.local_rank() < options.local_world()),
      "rank: expected one of host " + std::to_string(options.node_rank) + ", found " + std::to_string(options.rank));
}

}  // namespace optserve::worker
