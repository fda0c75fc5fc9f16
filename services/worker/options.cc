#include "worker/options.h"

#include <charconv>
#include <optional>

#include "base/address_check.h"
#include "base/error.h"
#include "base/format_names.h"
#include "base/input_check.h"
#include "base/limits.h"
#include "base/program.h"
#include "confinement/program_cage.h"
#include "model_spec/opt_config.h"
#include "quant/quant_format.h"
#include "transport/locality.h"
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

namespace {
void add_group_options(ConfigParser& parser, WorkerOptions& options) {
  keys::add_options(parser, options.keys);
  parser.begin_group("Computing");
  parser.add(
      "collectives", options.collectives,
      "How the GPUs of a group add their sums: peer (each writes into the memory of the others, on one host), nccl, or "
      "auto (peer if a test at the start succeeds, otherwise nccl)");
  parser.begin_group("Several hosts");
  parser.add("nodes", options.nodes,
             "Number of hosts that share the group, each with its own worker; world counts the ranks of all hosts");
  parser.add("node-rank", options.node_rank,
             "Which of the hosts this is, counted from 0; -1: read it from GROUP_RANK, LWS_WORKER_INDEX or "
             "JOB_COMPLETION_INDEX");
  parser.add("rendezvous", options.rendezvous,
             "HOST:PORT of host 0, where the ranks of several hosts meet; empty: the host is read from MASTER_ADDR or "
             "LWS_LEADER_ADDRESS, and the port from MASTER_PORT (otherwise it is 29500)");
  parser
      .add("group-key", options.group_key,
           "File with a secret key, the same on all hosts, with which the ranks encrypt what they exchange and keep "
           "others out; `optserve keys new` makes one. It is read at each start of the ranks")
      .unlogged();
}

// What one step computes, and what it may guess or reuse.
void add_step_options(ConfigParser& parser, WorkerOptions& options) {
  parser.begin_group("Batch and KV cache");
  parser.add("max-step-tokens", options.max_step_tokens,
             "Most tokens that one step of the engine processes; longer prompts are processed in chunks");
  parser.add("prefix-cache", options.prefix_cache,
             "Keep the KV cache of earlier prompts and outputs while there is room, and reuse it for prompts that "
             "begin alike");
  parser.add(
      "draft-tokens", options.draft_tokens,
      "Most tokens that are guessed at a time where a text repeats itself, while few generations run; 0: never guess");
  parser.add("draft-model", options.draft_model,
             "Folder with the checkpoint of a small model of the same vocabulary, which guesses where the text does "
             "not repeat "
             "itself");
  parser.add("draft-model-tokens", options.draft_model_tokens, "Most tokens that the draft model guesses at a time");
}

void add_time_options(ConfigParser& parser, WorkerOptions& options) {
  parser.begin_group("Times");
  parser.add("step-deadline-ms", options.step_deadline_ms,
             "Longest time of a step; a step that takes longer ends the group, which then starts again");
  parser.add("load-deadline-ms", options.load_deadline_ms, "Longest time for loading the weights");
  parser.add("drain-ms", options.drain_ms, "Time in which running jobs may finish after SIGTERM");
}

void add_supervisor_options(ConfigParser& parser, WorkerOptions& options) {
  parser.add("rank", options.rank, "Set by the supervisor").hidden();
  parser.add("group-fd", options.group_fd, "Set by the supervisor").hidden();
  parser.add("group-bytes", options.group_bytes, "Set by the supervisor").hidden();
  parser.add("status-fd", options.status_fd, "Set by the supervisor").hidden();
  parser.add("lifeline-fd", options.lifeline_fd, "Set by the supervisor").hidden();
}
}  // namespace

void add_options(ConfigParser& parser, WorkerOptions& options) {
  parser.begin_group("Model and scheduler");
  parser
      .add("scheduler", options.schedulers,
           "Service endpoint of a scheduler; repeatable: the service registers with all of them")
      .separated_by_commas();
  parser.add("model", options.model, "NAME=FOLDER: the name clients use and a sharded checkpoint");
  parser.add("world", options.world, "Tensor-parallel size: number of processes (ranks) that share the model");
  parser.add("device", options.device, "What the model runs on: cpu or cuda");
  parser.add("dtype", options.dtype,
             "Type of the activations: fp32, fp16 or bf16; auto: fp32 on the CPU, otherwise the type of the weights");
  parser.add("kv-dtype", options.kv_dtype,
             "Type of the KV cache: int8 holds about twice as many tokens as fp16; auto: the same type as dtype");
  parser.add("threads", options.threads, "Threads of each rank on the CPU; 0: the number of cores divided by world");
  parser.add(
      "name", options.name,
      "Name of this process in 'optserve status' and for 'optserve queue --service'; empty: host and process id");
  parser.begin_group("Batch and KV cache");
  parser.add("max-sequences", options.max_sequences, "Most generations that run at the same time");
  parser.add("lease-ahead", options.lease_ahead,
             "Generations that are leased beyond max-sequences, so that a free slot is taken at once; -1: a quarter of "
             "max-sequences");
  parser.add("kv-tokens", options.kv_tokens,
             "Number of tokens that the KV cache holds; 0: as many as fit in the memory of the GPU or, on the CPU, in "
             "kv-memory-mb");
  parser.add("kv-memory-mb", options.kv_memory_mb,
             "Memory for the KV cache of each rank on the CPU, when kv-tokens is 0");
  parser.add("memory-fraction", options.memory_fraction, "Largest part of a GPU's memory that may be in use");
  parser.begin_group("Computing");
  parser.add("deterministic", options.deterministic,
             "Give a job the same tokens whatever else runs at the same time; this costs speed on GPUs, and CPUs "
             "always do it");
  parser.add(
      "relu-skip", options.relu_skip,
      "On GPUs, for up to 8 rows, do not read the weights that a zero behind the ReLU would multiply: off, auto (where "
      "this is measured to be faster) or always; the weights take a sixth to a third more memory");
  parser.add(
      "fp8-activations", options.fp8_activations,
      "Round the activations that fp8 weights multiply to fp8 too: faster in large batches on Hopper GPUs, less exact");
  parser.add("tuning-cache", options.tuning_cache,
             "Folder in which the worker keeps which GPU algorithms were the fastest; empty: it does not keep them");
  parser.add("random-weights", options.random_weights,
             "Use random weights; model is then NAME=FOLDER, whose manifest gives the sizes, or the name of a "
             "published model");
  parser.add(
      "random-format", options.random_format,
      "Format of the large matrices of random weights: int8, fp8, int4, or none (the type of the other weights)");
  parser.add("random-up-bias", options.random_up_bias,
             "Mean of the biases before the ReLU of random weights; at -1.68, 95% of the outputs of the ReLU are zero");
  add_step_options(parser, options);
  add_time_options(parser, options);
  parser.begin_group("Computing");
  parser.add("verify-checksums", options.verify_checksums, "Check every shard against the manifest while loading");
  parser.add("bench", options.bench, "Run a benchmark instead of serving, as 'optserve bench' does: JSON or a file");
  add_group_options(parser, options);
  add_common_options(parser, options.common);
  confinement::add_sandbox_option(parser, options.sandbox);
  parser.begin_group("Logs, metrics and health");
  parser.add("rank-http-port", options.rank_http_port,
             "Port for the metrics and health of rank 0, and from there one port for each further rank; 0: any free "
             "ports; -1: "
             "http-port + 1");
  parser.add_example("optserve-worker --model opt-125m=/models/opt-125m", "a group of one rank on the CPU");
  parser.add_example(
      "optserve-worker --model opt-30b=/models/opt-30b --world 2 --device cuda --scheduler tcp://host:5556",
      "a group of two GPUs");
  add_supervisor_options(parser, options);
}

std::vector<std::string> command_line(WorkerOptions options) {
  ConfigParser parser("optserve-worker", "");
  add_options(parser, options);
  std::vector<std::string> arguments{"optserve-worker"};
  for (const auto& [name, value] : parser.effective()) {
    const bool is_given_below =
        name == "scheduler" || name == "server-key" || name == "secret-key" || name == "group-key";
    if (!is_given_below && !value.empty()) arguments.push_back("--" + name + "=" + value);
  }
  for (const std::string& scheduler : options.schedulers) arguments.push_back("--scheduler=" + scheduler);
  for (const std::string& key : options.keys.server_keys) arguments.push_back("--server-key=" + key);
  // A literal key came from a variable, which the ranks inherit; it must not appear on a command line.
  const auto add_secret = [&arguments](const std::string& option, const std::string& secret) {
    if (!secret.empty() && !secret.starts_with(keys::kSecretPrefix)) arguments.push_back(option + "=" + secret);
  };
  add_secret("--secret-key", options.keys.secret_key);
  add_secret("--group-key", options.group_key);
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
  if (!condition) throw ConfigurationError(message);
}
void require(const Status& status) {
  if (!status.ok()) throw ConfigurationError(status.refusal().message);
}

void check_group_key(const WorkerOptions& options) {
  const bool stays_here = options.nodes == 1 || transport::is_local("tcp://" + options.rendezvous);
  require(stays_here || options.keys.insecure || !options.group_key.empty(),
          "rendezvous '" + options.rendezvous +
              "': others reach that, and the group has no key. Make one with `optserve keys new group`, give "
              "group.secret to all hosts as --group-key (docs/security.md); or give --insecure, where the network "
              "keeps others out");
}
}  // namespace

void check_options(const WorkerOptions& options) {
  transport::check_schedulers(options.schedulers);
  for (const std::string& scheduler : options.schedulers) {
    require(check_address("scheduler", scheduler, AddressUse::kConnect));
  }
  const bool has_shape = !options.model_folder().empty() ||
                         (options.random_weights && model_spec::find_published(options.model) != nullptr);
  const bool named =
      has_shape && !options.model_name().empty() && options.model_name().size() <= limits::kModelNameBytesMax;
  require(named, "model: expected NAME=FOLDER, or a published name with random-weights, found '" + options.model + "'");
  require(check_choice("dtype", options.dtype, with_words({"auto"}, kDtypeNames)));
  require(check_choice("kv-dtype", options.kv_dtype, with_words({"auto"}, kKvDtypeNames)));
  require(check_choice("relu-skip", options.relu_skip, {"off", "auto", "always"}));
  require(check_choice("collectives", options.collectives, {"auto", "peer", "nccl"}));
  require(options.collectives != "peer" || options.nodes == 1, "collectives: peer needs all ranks on one host");
  require(check_choice("random-format", options.random_format, with_words({"none"}, kQuantFormatNames)));
  require(check_above("memory-fraction", options.memory_fraction, 0, 1));
  require(check_choice("device", options.device, {"cpu", "cuda"}));
  require(check_range("rank-http-port", options.rank_http_port, -1, 65'535));
  require(check_range("world", options.world, 1, limits::kWorldSizeMax));
  require(check_range("threads", options.threads, 0, 1024));
  require(check_range("max-sequences", options.max_sequences, 1, 4096));
  require(check_range("lease-ahead", options.lease_ahead, -1, 4096));
  require(check_range("max-step-tokens", options.max_step_tokens, options.max_sequences, 1 << 20));
  require(check_range("kv-tokens", options.kv_tokens, 0, int64_t{1} << 31));
  require(check_range("kv-memory-mb", options.kv_memory_mb, 1, int64_t{1} << 20));
  require(check_range("draft-model-tokens", options.draft_model_tokens, 1, 15));
  require(check_range("step-deadline-ms", options.step_deadline_ms, 100, 3'600'000));
  require(check_range("load-deadline-ms", options.load_deadline_ms, 1'000, 24 * 3'600'000));
  require(check_range("drain-ms", options.drain_ms, 0, 3'600'000));
  if (!options.bench.empty()) {
    const auto spec = workload::read_bench_spec(options.bench);
    require(spec.ok(), spec.ok() ? "" : "bench: " + spec.refusal().message);
  }
  require(check_range("nodes", options.nodes, 1, options.world));
  require(options.world % options.nodes == 0, "nodes: expected a divisor of world " + std::to_string(options.world) +
                                                  ", found " + std::to_string(options.nodes));
  require(check_range("node-rank", options.node_rank, 0, options.nodes - 1));
  require(options.nodes == 1 || (options.rendezvous_port() > 0 && !options.rendezvous_host().empty()),
          "rendezvous: expected HOST:PORT, found '" + options.rendezvous + "'");
  check_group_key(options);
  require(
      options.rank == -1 || (options.local_rank() >= 0 && options.local_rank() < options.local_world()),
      "rank: expected one of host " + std::to_string(options.node_rank) + ", found " + std::to_string(options.rank));
}

}  // namespace optserve::worker
