// Writes what the engine computes for given prompts, so that transformers_parity.py can compare it with another
// implementation.
//   gpu_parity CHECKPOINT fp32|fp16|bf16 CASES.json OUT_FOLDER [--device cpu|cuda] [--world N]
//
// A world above 1 is a group of processes, as in a worker: over NCCL with a GPU for each, or over shared memory.
// CASES.json: {"cases": [{"prompt": [ids], "new_tokens": n}]}. Writes, for each case i,
//   OUT/logits-i.bin    F32[len, vocab]: the logits of every position, the prompt in one step
//   OUT/chunked-i.bin   the same with the prompt in several steps, the last ones of one token
// and OUT/generated.json, the greedy generations of an engine that is led as in a server: each case alone, three cases
// together, and all of them together.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/limits.h"
#include "checkpoint/reader.h"
#include "engine/generate.h"
#include "engine/kv_cache.h"
#include "engine/models/opt.h"
#include "engine/slots.h"
#include "engine/weight_loader.h"
#include "engine/weight_source.h"
#include "engine/workspace.h"

namespace optserve::parity {
namespace {

using batching::SequenceRequest;
using batching::StepPlan;
using engine::WeightSource;
using nlohmann::json;

constexpr int64_t kLogitRows = 128;     // of one product
constexpr int32_t kFirstChunk = 7;      // less than a KV block, so that the next chunk begins inside one
constexpr int32_t kSingles = 3;         // tokens at the end of a prompt that are steps of their own
constexpr int32_t kStepTokens = 256;    // of a step of the led engine; longer prompts are cut into chunks
constexpr int32_t kSequences = 16;      // its slots
constexpr size_t kFewTogether = 3;      // a step of three decoding sequences is padded on some devices
constexpr int32_t kSpareSequences = 2;  // of the longest context, in KV blocks
constexpr int kWorldMax = 8;
constexpr int kGroupTimeoutMs = 120'000;

struct Case {
  std::vector<TokenId> prompt;
  int32_t new_tokens = 0;
};

int32_t blocks_of(size_t tokens) {
  return static_cast<int32_t>((tokens + limits::kKvBlockTokens - 1) / limits::kKvBlockTokens);
}

std::vector<Case> read_cases(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw Error("cannot read " + path);
  const json root = json::parse(file);
  std::vector<Case> cases;
  for (const json& item : root.at("cases")) {
    cases.push_back({item.at("prompt").get<std::vector<TokenId>>(), item.at("new_tokens").get<int32_t>()});
    if (cases.back().prompt.empty()) throw Error(path + ": a prompt has no token");
  }
  if (cases.empty()) throw Error(path + ": no cases");
  return cases;
}

size_t longest_prompt(const std::vector<Case>& cases) {
  size_t longest = 0;
  for (const Case& item : cases) longest = std::max(longest, item.prompt.size());
  return longest;
}

engine::WorkspaceSizes workspace_sizes(const model_spec::OptConfig& config, int64_t rows, int64_t world) {
  engine::WorkspaceSizes sizes = engine::workspace_widths(config, world);
  sizes.rows_max = rows;
  sizes.logit_rows_max = kLogitRows;
  return sizes;
}

// The model of one rank without planner and sampler, for one sequence at a time.
class BareModel {
 public:
  BareModel(const WeightSource& source, backend::Backend& backend, comm::Communicator& communicator, size_t tokens_max)
      : config_(source.config()),
        num_blocks_(blocks_of(tokens_max)),
        cache_(backend, config_, backend.compute_dtype(), num_blocks_, communicator.world()),
        workspace_(backend, workspace_sizes(config_, static_cast<int64_t>(tokens_max), communicator.world())),
        exec_{backend, communicator, workspace_},
        slots_(backend, {1, static_cast<int32_t>(tokens_max), num_blocks_, static_cast<int32_t>(config_.max_positions)},
               config_) {
    engine::WeightLoader loader(source, backend, communicator.rank(), communicator.world(), {});
    model_.emplace(loader, cache_);
    loader.expect_all_taken();
    backend.synchronize();
  }

  // Logits of every position, F32[len, vocab]; the prompt's steps have `chunks` tokens.
  std::vector<float> logits(const std::vector<TokenId>& prompt, const std::vector<int32_t>& chunks) {
    std::vector<float> all;
    all.reserve(prompt.size() * static_cast<size_t>(config_.vocab));
    int32_t start = 0;
    for (const int32_t chunk : chunks) {
      StepPlan plan;
      plan.step = ++step_;
      batching::SlotWork& work = plan.work.emplace_back();
      work.start = start;
      work.num_tokens = chunk;
      work.tokens.assign(prompt.begin() + start, prompt.begin() + start + chunk);
      if (start == 0) {
        plan.admitted.push_back({0, static_cast<int32_t>(prompt.size()), {}});
        for (int32_t i = blocks_of(prompt.size()); i-- > 0;) work.new_blocks.push_back(i);  // not in order of memory
      }
      append(run(plan), all);
      start += chunk;
    }
    check_eq(static_cast<size_t>(start), prompt.size(), "tokens of the chunks");
    return all;
  }

 private:
  Tensor run(const StepPlan& plan) {
    const engine::Batch& batch = slots_.begin_step(plan);
    return model_->forward(exec_, batch);
  }

  void append(const Tensor& hidden, std::vector<float>& all) {
    for (int64_t begin = 0; begin < hidden.dim(0); begin += kLogitRows) {
      const Tensor rows = hidden.rows(begin, std::min(hidden.dim(0), begin + kLogitRows));
      const Tensor logits = model_->logits(exec_, rows, {});
      const size_t known = all.size();
      all.resize(known + static_cast<size_t>(logits.numel()));
      exec_.backend.download(all.data() + known, logits);
    }
  }

  model_spec::OptConfig config_;
  int32_t num_blocks_;
  engine::KvCache cache_;
  engine::Workspace workspace_;
  engine::Exec exec_;
  engine::Slots slots_;
  std::optional<engine::OptModel> model_;
  uint64_t step_ = 0;
};

// Cuts a prompt into a short first chunk, a chunk for the middle, and single tokens.
std::vector<int32_t> cut(int32_t length) {
  const int32_t singles = std::min(kSingles, length);
  const int32_t first = std::min(kFirstChunk, length - singles);
  std::vector<int32_t> chunks = {first, length - singles - first};
  std::erase(chunks, 0);
  chunks.insert(chunks.end(), static_cast<size_t>(singles), 1);
  return chunks;
}

void write_floats(const std::string& path, const std::vector<float>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
  file.close();
  if (!file) throw Error("cannot write " + path);
}

// A rank: the backend that it computes with, and whether it writes the results.
struct Rank {
  std::unique_ptr<backend::Backend> backend;
  std::unique_ptr<comm::Communicator> communicator;  // uses the stream of the backend, so it must be destroyed first
  bool leads() const { return communicator->rank() == 0; }
};

void write_logits(const std::string& checkpoint, const Rank& rank, const std::vector<Case>& cases,
                  const std::string& folder) {
  const auto reader = checkpoint::CheckpointReader::open(checkpoint);
  if (!reader.ok()) throw Error(reader.refusal().message);
  const auto source = engine::make_checkpoint_source(reader.value());
  BareModel model(*source, *rank.backend, *rank.communicator, longest_prompt(cases));
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto& prompt = cases[i].prompt;
    const auto length = static_cast<int32_t>(prompt.size());
    const std::string name = std::to_string(i) + ".bin";
    const auto whole = model.logits(prompt, {length}), chunked = model.logits(prompt, cut(length));
    if (!rank.leads()) continue;
    write_floats(folder + "/logits-" + name, whole);
    write_floats(folder + "/chunked-" + name, chunked);
  }
}

SequenceRequest greedy_request(const Case& item) {
  SequenceRequest request;
  request.tokens = item.prompt;
  request.prompt_tokens = static_cast<int32_t>(item.prompt.size());
  request.max_new_tokens = item.new_tokens;
  request.prompt_logprobs = true;
  request.sampling.temperature = 0;
  request.sampling.ignore_eos = true;
  return request;
}

engine::EngineOptions engine_options(const std::string& checkpoint, const std::vector<Case>& cases) {
  engine::EngineOptions options;
  options.checkpoint = checkpoint;
  options.verify_checksums = false;  // the converter has just written the files
  options.max_sequences = std::max(kSequences, static_cast<int32_t>(cases.size()));
  options.max_step_tokens = std::max(kStepTokens, options.max_sequences);
  int32_t longest = 0;
  for (const Case& item : cases) {
    const int32_t blocks = blocks_of(item.prompt.size() + static_cast<size_t>(item.new_tokens));
    options.num_blocks += blocks;
    longest = std::max(longest, blocks);
  }
  options.num_blocks += kSpareSequences * longest;
  return options;
}

json to_json(const std::vector<engine::Generation>& generations) {
  json all = json::array();
  for (const engine::Generation& generation : generations) {
    all.push_back({{"ids", generation.tokens},
                   {"logprobs", generation.logprobs},
                   {"prompt_logprobs", generation.prompt_logprobs}});
  }
  return all;
}

void write_generations(const std::string& checkpoint, const Rank& rank, const std::vector<Case>& cases,
                       const std::string& folder) {
  auto engine = engine::Engine::create(engine_options(checkpoint, cases), *rank.backend, *rank.communicator);
  if (!engine.ok()) throw Error(engine.refusal().message);
  if (!rank.leads()) return follow(*engine.value(), *rank.communicator);
  engine::GroupLeader leader(*engine.value(), *rank.communicator);
  const auto options = planner_options(*engine.value());
  std::vector<SequenceRequest> requests;
  std::vector<engine::Generation> alone;
  for (const Case& item : cases) {
    requests.push_back(greedy_request(item));
    alone.push_back(engine::generate_all(leader, options, {requests.back()}).front());
  }
  const auto few = requests.begin() + static_cast<std::ptrdiff_t>(std::min(kFewTogether, requests.size()));
  const json generated = {{"backend", rank.backend->description()},
                          {"alone", to_json(alone)},
                          {"few", to_json(engine::generate_all(leader, options, {requests.begin(), few}))},
                          {"together", to_json(engine::generate_all(leader, options, requests))}};
  leader.stop();
  std::ofstream file(folder + "/generated.json");
  file << generated.dump(1) << "\n";
  file.close();
  if (!file) throw Error("cannot write " + folder + "/generated.json");
}

struct Arguments {
  std::string checkpoint, cases, folder;
  backend::BackendOptions backend;
  int world = 1;
};

std::optional<Arguments> parse(const std::vector<std::string>& words) {
  if (words.size() < 4 || words.size() % 2 != 0) return std::nullopt;
  const auto dtype = parse_weight_dtype(words[1]);
  if (!dtype) return std::nullopt;
  Arguments arguments{words[0], words[2], words[3], {}};
  arguments.backend.device.kind = DeviceKind::kCuda;
  arguments.backend.compute_dtype = *dtype;
  for (size_t i = 4; i < words.size(); i += 2) {
    const std::string &name = words[i], &value = words[i + 1];
    if (name == "--device" && (value == "cpu" || value == "cuda")) {
      arguments.backend.device.kind = value == "cuda" ? DeviceKind::kCuda : DeviceKind::kCpu;
    } else if (name == "--world" && value.size() == 1 && value[0] >= '1' && value[0] <= '0' + kWorldMax) {
      arguments.world = value[0] - '0';
    } else {
      return std::nullopt;
    }
  }
  return arguments;
}

// `control`: a communicator of all ranks.
Rank make_rank(const Arguments& arguments, std::unique_ptr<comm::Communicator> control, const Clock& clock) {
  const int world = control->world();
  backend::BackendOptions options = arguments.backend;
  Rank rank;
  if (options.device.kind == DeviceKind::kCpu) {
    options.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / world);
    rank.backend = backend::make_backend(options);
    rank.communicator = std::move(control);
    return rank;
  }
  options.device.index = control->rank();
  rank.backend = backend::make_backend(options);
  if (world == 1) {
    rank.communicator = std::move(control);
    return rank;
  }
  setenv("NCCL_SOCKET_IFNAME", "lo", 0);
  comm::NcclOptions nccl;
  nccl.device = options.device.index;
  nccl.stream = rank.backend->native_stream();
  nccl.timeout_ms = kGroupTimeoutMs;
  rank.communicator = comm::make_nccl_communicator(std::move(control), nccl, clock);
  return rank;
}

void run_rank(const Arguments& arguments, std::unique_ptr<comm::Communicator> control, const Clock& clock) {
  const std::vector<Case> cases = read_cases(arguments.cases);
  const Rank rank = make_rank(arguments, std::move(control), clock);
  write_logits(arguments.checkpoint, rank, cases,
               arguments.folder);  // its model is freed before the next one is loaded
  write_generations(arguments.checkpoint, rank, cases, arguments.folder);
}

// The exit status of a rank's process.
int run_rank_process(const Arguments& arguments, const comm::ProcessGroupMemory& memory, int rank) {
  try {
    const SystemClock clock;
    run_rank(arguments, comm::make_process_communicator(memory, rank, arguments.world, kGroupTimeoutMs, clock), clock);
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "gpu_parity, rank %d: %s\n", rank, e.what());
    return 1;
  }
}

// Starts a process for each rank. The first that fails ends all.
void run_group(const Arguments& arguments) {
  const comm::ProcessGroupMemory memory = comm::create_process_group_memory(arguments.world);
  const pid_t parent = getpid();
  std::vector<pid_t> pids;
  for (int rank = 0; rank < arguments.world; ++rank) {
    const pid_t pid = fork();  // no CUDA call may come before this: it would make CUDA unusable in the children
    if (pid == 0) {
      if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) _exit(1);
      const int status = run_rank_process(arguments, memory, rank);
      std::fflush(nullptr);
      _exit(status);
    }
    if (pid < 0) throw errno_error("fork");  // ranks that were started end with this process
    pids.push_back(pid);
  }
  bool failed = false;
  while (!pids.empty()) {
    int status = 0;
    std::erase(pids, waitpid(-1, &status, 0));
    if (status == 0) continue;
    failed = true;
    for (const pid_t other : pids) kill(other, SIGKILL);
  }
  close(memory.fd);
  if (failed) throw Error("a rank failed");
}

void run(const Arguments& arguments) {
  std::filesystem::create_directories(arguments.folder);
  if (arguments.world > 1) return run_group(arguments);
  run_rank(arguments, comm::make_solo_communicator(), SystemClock());
}

}  // namespace
}  // namespace optserve::parity

int main(int argc, char** argv) {
  const auto arguments = optserve::parity::parse({argv + 1, argv + argc});
  if (!arguments) {
    std::fprintf(stderr,
                 "usage: gpu_parity CHECKPOINT fp32|fp16|bf16 CASES.json OUT_FOLDER [--device cpu|cuda] [--world N]\n");
    return 2;
  }
  try {
    optserve::parity::run(*arguments);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "gpu_parity: %s\n", e.what());
    return 1;
  }
  return 0;
}
