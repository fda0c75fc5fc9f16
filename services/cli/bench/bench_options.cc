#include "cli/bench/bench_options.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/format_names.h"
#include "base/limits.h"
#include "checkpoint/manifest/model_identity.h"
#include "cli/commands/sampling_options.h"
#include "cli/stack/stack_plan.h"

namespace optserve::cli {
namespace {

using workload::BenchKind;
using workload::BenchSpec;

constexpr int kStepTokensMin = 512;
constexpr int kStepTokensServed = 2048;  // of a throughput benchmark
constexpr int kStepTokensMax = 8192;     // the engine reserves memory for these rows; longer prompts take more steps

Refusal bad_option(const std::string& what) { return refuse(ErrorCode::kBadRequest, what); }

std::optional<int32_t> parse_number(std::string_view text) {
  int32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Status check_world(const BenchOptions& options, const BenchPlan& plan, const checkpoint::Manifest* stored) {
  if (!is_legal_world(plan.config, options.world)) {
    return bad_option("world: " + plan.name + " cannot be shared by " + std::to_string(options.world) +
                      " ranks; possible are " + legal_worlds_text(plan.config));
  }
  if (stored == nullptr) return ok_status();
  return check_shards(plan.folder, checkpoint::shard_plan(*stored), options.world);
}

// A model that is known by its name: with random weights, or served by the scheduler that is connected to.
Status find_named_model(const BenchOptions& options, BenchPlan& plan) {
  const model_spec::OptConfig* config = model_spec::find_published(options.model);
  if (config == nullptr) {
    std::string names;
    for (const auto& known : model_spec::published_configs()) names += (names.empty() ? "" : ", ") + known.name;
    const std::string other = options.random_weights ? "" : "NAME=FOLDER or ";
    return refuse(ErrorCode::kUnknownModel,
                  "model: expected " + other + "one of " + names + ", found '" + options.model + "'");
  }
  plan.name = config->name;
  plan.config = *config;
  return options.random_weights ? check_world(options, plan, nullptr) : ok_status();
}

Status find_model(const BenchOptions& options, BenchPlan& plan) {
  if (options.model.empty()) {
    return bad_option("model: expected the folder of a sharded checkpoint, or a published name with --random-weights");
  }
  const size_t equals = options.model.find('=');
  const bool is_name = equals == std::string::npos && !std::filesystem::exists(options.model);
  if (is_name && options.random_weights && options.through == "pipeline" && options.connect.empty()) {
    return bad_option(
        "random-weights: a pipeline needs a folder with a manifest and a tokenizer; leave out --through pipeline");
  }
  if (is_name && (options.random_weights || !options.connect.empty())) return find_named_model(options, plan);
  if (is_name && model_spec::find_published(options.model) != nullptr) {
    return bad_option("model: there is no folder " + options.model + "; with --random-weights the name is enough");
  }
  plan.folder = equals == std::string::npos ? options.model : options.model.substr(equals + 1);
  const auto identity = checkpoint::read_model_identity(plan.folder);
  if (!identity.ok()) return refuse(identity.refusal().code, "model: " + identity.refusal().message);
  const checkpoint::Manifest& manifest = identity.value().manifest;
  plan.folder = std::filesystem::absolute(plan.folder).lexically_normal().string();
  plan.config = manifest.config;
  plan.name = equals == std::string::npos ? manifest.config.name : options.model.substr(0, equals);
  if (!options.connect.empty()) return ok_status();
  return check_world(options, plan, options.random_weights ? nullptr : &manifest);
}

Result<BenchSpec> make_spec(const BenchOptions& options) {
  BenchSpec spec;
  spec.kind = options.kind;
  if (options.kind == BenchKind::kLatency) {
    auto batches = parse_batches(options.batches);
    if (!batches.ok()) return batches.refusal();
    spec.batches = std::move(batches).value();
  } else {
    spec.num_requests = options.num_requests;
    spec.mixed_lengths = options.lengths == "mixed";
  }
  spec.input_tokens = options.input_tokens;
  spec.shared_prefix = options.shared_prefix;
  spec.output_tokens = options.output_tokens;
  spec.warmup = options.warmup;
  spec.repeats = options.repeats;
  spec.seed = options.seed;
  spec.sampling = options.sampling;
  if (Status status = workload::validate(spec); !status.ok()) return status.refusal();
  return spec;
}

// Sizes that let the engine admit a whole batch in one step, unless its rows need too much memory.
std::vector<std::string> engine_sizes(const BenchOptions& options, const BenchSpec& spec) {
  int64_t sequences = options.max_sequences;
  int64_t rows = kStepTokensServed;
  if (spec.kind == BenchKind::kLatency) {
    sequences = *std::max_element(spec.batches.begin(), spec.batches.end());
    rows = std::clamp<int64_t>(sequences * spec.input_tokens, kStepTokensMin, kStepTokensMax);
  }
  if (options.max_step_tokens > 0) rows = options.max_step_tokens;
  return {"max-sequences=" + std::to_string(sequences), "max-step-tokens=" + std::to_string(std::max(rows, sequences)),
          "step-deadline-ms=600000"};
}

}  // namespace

BenchOptions::BenchOptions(BenchKind k)
    : kind(k),
      input_tokens(k == BenchKind::kLatency ? 4 : 200),
      output_tokens(k == BenchKind::kLatency ? 256 : 180),
      repeats(k == BenchKind::kLatency ? 3 : 1) {}

void add_options(ConfigParser& parser, BenchOptions& options) {
  const bool latency = options.kind == BenchKind::kLatency;
  parser.add("model", options.model,
             "FOLDER or NAME=FOLDER of a sharded checkpoint; with --random-weights also a name, opt-125m to opt-175b");
  parser.add("random-weights", options.random_weights,
             "Draw the weights at random: speed depends only on their shapes, so no checkpoint is needed");
  parser
      .add("random-format", options.random_format,
           "Format of the large matrices of random weights; none: that of the others")
      .choices(with_words({"none"}, kQuantFormatNames));
  parser.add("world", options.world, "Tensor-parallel size: number of processes that share the model")
      .range(1, limits::kWorldSizeMax);
  parser.add("device", options.device, "Device that computes").choices({"cpu", "cuda"});
  parser.add("dtype", options.dtype, "Type to compute in: auto, fp32, fp16 or bf16");
  parser.add("worker-option", options.worker_options,
             "Option of optserve-worker as NAME=VALUE, such as kv-memory-mb=4096; repeatable");
  parser
      .add("through", options.through,
           "engine: run the engine alone; pipeline: go through client, scheduler, tokenizer and worker")
      .choices({"engine", "pipeline"});
  parser.add("connect", options.connect,
             "Address of a running scheduler whose pipeline is measured; by default one is started and stopped");
  parser.add("volatile", options.is_volatile, "Keep the jobs of the pipeline that is started in memory only");
  if (latency) {
    parser.add("batches", options.batches, "Batch sizes: 1,2,8 for these, 1..1024 for doubling from 1 to 1024");
  } else {
    parser.add("requests", options.num_requests, "Number of requests, which are submitted all at once");
    parser
        .add("lengths", options.lengths,
             "mixed: log-normally distributed, as in conversations; fixed: all of the same length")
        .choices({"mixed", "fixed"});
    parser.add("max-sequences", options.max_sequences, "Most requests that the engine runs at a time")
        .range(1, workload::kBatchMax);
  }
  const std::string mean = latency ? "" : "; the mean, if lengths are mixed";
  parser.add("shared-prefix", options.shared_prefix, "Number of tokens with which all prompts begin alike");
  parser.add("input-tokens", options.input_tokens, "Tokens of a prompt" + mean);
  parser.add("output-tokens", options.output_tokens, "New tokens of a request" + mean);
  parser.add("warmup", options.warmup, "Number of runs before those that count");
  parser.add("repeats", options.repeats, "Number of runs that count; their median is reported");
  parser.add("max-step-tokens", options.max_step_tokens,
             "Most tokens in one step of the engine; 0: chosen to suit the benchmark");
  parser.add("seed", options.seed, "Seed of prompts and lengths");
  add_benchmarked_parameters(parser, options.sampling);
  parser.add("json", options.json_file, "File to write with settings, machine and all measurements");
  parser.mark_rare({"random-format", "connect", "volatile", "shared-prefix", "warmup", "max-step-tokens", "seed"});
  if (!latency) return;
  parser.add("plot", options.plot_file, "SVG file to draw");
  parser.add("published", options.published_file, kPublishedHelp);
}

Result<std::vector<int32_t>> parse_batches(const std::string& text) {
  const auto wrong = [&text] {
    return bad_option("batches: expected numbers from 1 to " + std::to_string(workload::kBatchMax) +
                      " as 1,2,8 or 1..1024, found '" + text + "'");
  };
  std::vector<int32_t> batches;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view part = std::string_view(text).substr(begin, end - begin);
    const size_t dots = part.find("..");
    const auto first = parse_number(part.substr(0, dots));
    const auto last = dots == std::string_view::npos ? first : parse_number(part.substr(dots + 2));
    if (!first || !last || *first < 1 || *last < *first || *last > workload::kBatchMax) return wrong();
    for (int32_t batch = *first; batch <= *last; batch *= 2) {
      if (std::find(batches.begin(), batches.end(), batch) == batches.end()) batches.push_back(batch);
    }
    begin = end + 1;
  }
  return batches;
}

Result<BenchPlan> plan_bench(const BenchOptions& options) {
  if (Status status = check_passed_options("worker-option", options.worker_options); !status.ok()) {
    return status.refusal();
  }
  BenchPlan plan;
  plan.pipeline = options.through == "pipeline" || !options.connect.empty();
  auto spec = make_spec(options);
  if (!spec.ok()) return spec.refusal();
  plan.spec = std::move(spec).value();
  if (Status status = find_model(options, plan); !status.ok()) return status.refusal();
  if (Status status = check_context(plan.spec, plan.name, plan.config.max_positions); !status.ok()) {
    return status.refusal();
  }
  plan.worker_options = engine_sizes(options, plan.spec);
  if (!options.dtype.empty()) plan.worker_options.push_back("dtype=" + options.dtype);
  if (options.random_format != "none") plan.worker_options.push_back("random-format=" + options.random_format);
  plan.worker_options.push_back("draft-tokens=0");  // drafts would speed up the repetitive output of random weights
  for (const std::string& option : options.worker_options) {
    const std::string name = option.substr(0, option.find('=') + 1);
    std::erase_if(plan.worker_options, [&](const std::string& other) { return other.starts_with(name); });
    plan.worker_options.push_back(option);
  }
  return plan;
}

std::vector<std::string> worker_arguments(const BenchOptions& options, const BenchPlan& plan) {
  std::vector<std::string> arguments = {"--model=" + plan.name + (plan.folder.empty() ? "" : "=" + plan.folder),
                                        "--world=" + std::to_string(options.world), "--device=" + options.device,
                                        "--log-level=warn", "--bench=" + to_json(plan.spec).dump()};
  if (options.random_weights) arguments.push_back("--random-weights");
  for (const std::string& option : plan.worker_options) arguments.push_back("--" + option);
  return arguments;
}

std::vector<std::string> stack_arguments(const BenchOptions& options, const BenchPlan& plan,
                                         const std::string& folder) {
  std::vector<std::string> arguments = {"up",        "--foreground",
                                        "--model",   plan.folder,
                                        "--name",    plan.name,
                                        "--world",   std::to_string(options.world),
                                        "--device",  options.device,
                                        "--dir",     folder,
                                        "--ports",   "auto",
                                        "--no-keys", "--ready-seconds",
                                        "1800",      "--drain-seconds",
                                        "2"};
  if (options.is_volatile) arguments.push_back("--volatile");
  std::vector<std::string> worker_options = plan.worker_options;
  if (options.random_weights) worker_options.push_back("random-weights=true");
  for (const std::string& option : worker_options) {
    arguments.push_back("--worker-option");
    arguments.push_back(option);
  }
  return arguments;
}

}  // namespace optserve::cli
