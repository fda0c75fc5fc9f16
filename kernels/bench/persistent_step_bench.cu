// Would one persistent kernel do a decoding step at batch 1 faster than the chain of dependent launches? This compares
// the two without the arithmetic, on the shapes of OPT models in fp16: both read the same bytes in the same phases, and
// every phase waits for the whole result of the one before it.
//   persistent  one kernel; weights are requested over the ends of phases, and vectors carry a tag in each word, so
//               that whoever needs a word looks until it is there
//   chain       one kernel for each phase in a graph of programmatic dependent launches; each requests weights before
//               it waits for the previous kernel
//   stream      the persistent kernel without waits, whose results are wrong
//   plain read  a kernel that reads as many bytes in any order
// Usage:
//   persistent_step_bench [--check] [--sweep] [--models 125M,1.3B,6.7B] [--rounds 5] [--replays 200]
//                         [--persistent KEY=VALUE,...] [--chain KEY=VALUE,...]
// --check computes small cases and compares them with the CPU, then ends. --sweep first looks for the fastest variant
// of both kernels. The keys are the fields of Variant (step_bench_plan.h). Every wait has a limit of 2 s.
#include <map>

#include "kernels/bench/step_bench_runs.cuh"

namespace optserve::kernels::step_bench {
namespace {

constexpr uint64_t kLimitNs = 2'000'000'000;
constexpr uint32_t kInputs = 6;  // of a check

struct Options {
  bool check = false, sweep = false;
  std::string models = "125M,1.3B,6.7B";
  uint32_t rounds = 5, replays = 200;
  Variant persistent, chain;
};

uint32_t number(const std::string& text) {
  char* end = nullptr;
  const unsigned long value = std::strtoul(text.c_str(), &end, 10);
  if (text.empty() || *end != 0 || value > 1'000'000) fail("\"" + text + "\" is no number up to a million");
  return static_cast<uint32_t>(value);
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t from = 0; from <= text.size();) {
    const size_t to = std::min(text.find(',', from), text.size());
    parts.push_back(text.substr(from, to - from));
    from = to + 1;
  }
  return parts;
}

void set_variant(Variant& variant, const std::string& text) {
  for (const std::string& part : split(text)) {
    const size_t equals = part.find('=');
    uint32_t* option = equals == std::string::npos ? nullptr : variant.find(part.substr(0, equals));
    if (option == nullptr) fail("\"" + part + "\" is no KEY=VALUE of a variant");
    *option = number(part.substr(equals + 1));
  }
  if (variant.warps == 0 || variant.warps > kWarpsMax || variant.per_sm == 0 || variant.per_sm > 4 ||
      variant.unit < 512) {
    fail("warps are 1 to 16, per_sm is 1 to 4, and unit at least 512");
  }
}

Options read_options(int count, char** arguments) {
  Options options;
  options.chain.shared_kb = 112;  // two blocks share a multiprocessor
  const std::map<std::string, std::function<void(const std::string&)>> takes = {
      {"--models", [&](const std::string& value) { options.models = value; }},
      {"--rounds", [&](const std::string& value) { options.rounds = std::max(number(value), 1u); }},
      {"--replays", [&](const std::string& value) { options.replays = std::max(number(value), 1u); }},
      {"--persistent", [&](const std::string& value) { set_variant(options.persistent, value); }},
      {"--chain", [&](const std::string& value) { set_variant(options.chain, value); }}};
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    if (name == "--check" || name == "--sweep") {
      (name == "--check" ? options.check : options.sweep) = true;
      continue;
    }
    const auto take = takes.find(name);
    if (take == takes.end() || i + 1 == count) fail("unknown option or no value: " + name);
    take->second(arguments[++i]);
  }
  return options;
}

Device open_device() {
  check(cudaSetDevice(0), "cudaSetDevice");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  std::printf("%s, %d multiprocessors, %.0f MB of L2\n", properties.name, properties.multiProcessorCount,
              properties.l2CacheSize * 1e-6);
  if (properties.major != 9) fail("this program is compiled for Hopper (compute capability 9.0) only");
  return {static_cast<uint32_t>(properties.multiProcessorCount),
          static_cast<uint32_t>(properties.sharedMemPerBlockOptin),
          static_cast<uint32_t>(properties.sharedMemPerMultiprocessor)};
}

// The step on the CPU.
class Reference {
 public:
  explicit Reference(const Step& step) : step_(step), weights_(step.bytes() / 4) {
    for (size_t i = 0; i < weights_.size(); ++i) weights_[i] = weight_word(i);
  }

  uint32_t sum() const {
    uint32_t sum = 0;
    for (const uint32_t word : weights_) sum += word;
    return sum;
  }

  std::vector<uint32_t> logits(std::vector<uint32_t> x) const {
    for (uint32_t product = 0; product < step_.products(); ++product) {
      x = multiply(product, x);
      if (step_.kind_of(product) == kQkv) x = attend(x);
    }
    return x;
  }

 private:
  std::vector<uint32_t> multiply(uint32_t product, const std::vector<uint32_t>& x) const {
    const Product& kind = step_.kinds[step_.kind_of(product)];
    const uint32_t* weights = weights_.data() + step_.offset_of(product) / 4;
    std::vector<uint32_t> y(kind.words);
    for (uint32_t word = 0; word < kind.words; ++word) {
      uint32_t sum = word;
      for (uint32_t row = 0; row < 2; ++row) {
        for (const uint32_t value : x) sum += *weights++ ^ value;
      }
      y[word] = mixed(sum);
    }
    return y;
  }

  std::vector<uint32_t> attend(const std::vector<uint32_t>& qkv) const {
    std::vector<uint32_t> y(step_.hidden_words);
    for (uint32_t word = 0; word < step_.hidden_words; ++word) {
      const uint32_t first = word / step_.head_words * step_.head_words;
      uint32_t sum = word;
      for (uint32_t vector = 0; vector < 3; ++vector) {
        for (uint32_t i = 0; i < step_.head_words; ++i) sum += qkv[vector * step_.hidden_words + first + i];
      }
      y[word] = mixed(sum);
    }
    return y;
  }

  Step step_;
  std::vector<uint32_t> weights_;
};

// Runs a graph on a few inputs, each of which must give the CPU's result. Vectors of the input before lie in the
// buffers, so whoever does not wait computes something else.
int wrong_results(Runs& runs, const std::vector<std::vector<uint32_t>>& right, const Graph& graph) {
  int wrong = 0;
  for (uint32_t seed = 0; seed < right.size(); ++seed) {
    runs.set_input(seed);
    graph.launch(runs.stream());
    runs.wait();
    wrong += runs.take_logits() != right[seed] ? 1 : 0;
  }
  return wrong;
}

void check_model(const Model& model, const Device& device, uint32_t cooperative) {
  Runs runs(model, device, kLimitNs);
  const Reference reference(runs.shape());
  std::vector<std::vector<uint32_t>> right;
  for (uint32_t seed = 0; seed < kInputs; ++seed) right.push_back(reference.logits(runs.set_input(seed)));
  int wrong = 0, cases = 0, too_large = 0;
  const auto judge = [&](const std::optional<Graph>& graph, const std::string& name) {
    const int bad = graph ? wrong_results(runs, right, *graph) : 0;
    if (bad != 0) std::printf("  WRONG for %d of %u inputs: %s\n", bad, kInputs, name.c_str());
    wrong += bad;
    ++(graph ? cases : too_large);
  };
  for (const uint32_t warps : {4u, 8u, 16u}) {
    for (const uint32_t unit : {512u, 2048u, 8192u}) {
      for (const uint32_t grain : {2u, 8u}) {
        Variant v;
        v.cooperative = cooperative;
        v.warps = warps, v.unit = unit, v.grain = grain, v.sleep = grain == 8 ? 40 : 0, v.per_sm = unit == 512 ? 2 : 1;
        judge(runs.persistent(v, true), "persistent " + text_of(v, true));
        judge(runs.persistent(v, true, 20'000), "persistent with delays " + text_of(v, true));
        v.shared_kb = unit == 2048 ? 48 : 100, v.at_once = grain == 8, v.prefetch = warps == 8 ? 4 : 0;
        judge(runs.chain(v), "chain " + text_of(v, false));
      }
    }
  }
  runs.plain_read().launch(runs.stream());
  runs.wait();
  if (runs.take_sum() != reference.sum()) {
    std::printf("  WRONG: plain read\n");
    ++wrong;
  }
  const auto careless = runs.persistent(Variant{.cooperative = cooperative}, false);
  const int seen = careless ? wrong_results(runs, right, *careless) : 0;
  if (seen == 0) std::printf("  WRONG: without waits the results are right, so this check sees nothing\n");
  std::printf(
      "check %-12s %d variants on %u inputs each, %d do not fit, %d results wrong; without waits %d are wrong\n",
      model.name.c_str(), cases, kInputs, too_large, wrong, seen);
  if (wrong != 0 || seen == 0) fail("the check failed");
}

// Milliseconds per replay.
double time_replays(const Runs& runs, const Graph& graph, uint32_t replays) {
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  graph.launch(runs.stream());
  check(cudaEventRecord(begin, runs.stream()), "cudaEventRecord");
  for (uint32_t i = 0; i < replays; ++i) graph.launch(runs.stream());
  check(cudaEventRecord(end, runs.stream()), "cudaEventRecord");
  runs.wait();
  float ms = 0;
  check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
  check(cudaEventDestroy(begin), "cudaEventDestroy");
  check(cudaEventDestroy(end), "cudaEventDestroy");
  return static_cast<double>(ms) / replays;
}

double median(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

std::optional<Graph> make_graph(Runs& runs, const Variant& variant, bool persistent) {
  return persistent ? runs.persistent(variant, true) : runs.chain(variant);
}

struct Choice {
  std::string name;
  std::vector<uint32_t> values;
};
const std::vector<Choice> kPersistentChoices = {{"warps", {4, 8, 16}},       {"unit", {1024, 2048, 4096, 8192}},
                                                {"sleep", {0, 20, 100}},     {"per_sm", {1, 2}},
                                                {"shared_kb", {0, 96, 160}}, {"rotate", {0, 37}}};
const std::vector<Choice> kChainChoices = {{"warps", {4, 8, 16}},
                                           {"unit", {1024, 2048, 4096, 8192}},
                                           {"shared_kb", {36, 54, 72, 112, 0}},
                                           {"pad_kb", {0, 72, 112}},
                                           {"at_once", {0, 1}},
                                           {"prefetch", {0, 4, 16}},
                                           {"per_sm", {1, 2}}};

// Changes one option at a time, and keeps what is faster by more than noise.
Variant fastest(Runs& runs, Variant best, bool persistent) {
  const auto time = [&](const Variant& variant) {
    const auto graph = make_graph(runs, variant, persistent);
    if (!graph) return 1e9;
    return median({time_replays(runs, *graph, 40), time_replays(runs, *graph, 40), time_replays(runs, *graph, 40)});
  };
  double best_ms = time(best);
  for (int pass = 0; pass < 2; ++pass) {
    for (const Choice& choice : persistent ? kPersistentChoices : kChainChoices) {
      const Variant base = best;
      for (const uint32_t value : choice.values) {
        Variant next = base;
        uint32_t* option = next.find(choice.name);
        if (*option == value) continue;
        *option = value;
        const double ms = time(next);
        if (ms < 1e9) std::printf("    %.4f ms  %s\n", ms, text_of(next, persistent).c_str());
        if (ms > best_ms * 0.997) continue;
        best_ms = ms;
        best = next;
      }
    }
  }
  return best;
}

struct Subject {
  std::string name;
  Graph graph;
  std::vector<double> ms = {};
};

void measure(const Model& model, const Device& device, const Options& options) {
  Runs runs(model, device, kLimitNs);
  Variant persistent = options.persistent, chain = options.chain;
  if (options.sweep) {
    std::printf("%s: sweep\n", model.name.c_str());
    persistent = fastest(runs, persistent, true);
    chain = fastest(runs, chain, false);
  }
  auto a = make_graph(runs, persistent, true), b = make_graph(runs, chain, false),
       s = runs.persistent(persistent, false);
  if (!a || !b || !s) fail(model.name + ": a variant does not fit the device");
  std::vector<Subject> subjects;
  subjects.push_back({"persistent  " + text_of(persistent, true), std::move(*a)});
  subjects.push_back({"chain       " + text_of(chain, false), std::move(*b)});
  subjects.push_back({"stream, persistent without waits", std::move(*s)});
  subjects.push_back({"plain read", runs.plain_read()});

  runs.set_input(7);
  std::vector<uint32_t> logits[2];
  for (int i = 0; i < 2; ++i) {
    runs.take_logits();
    for (int replay = 0; replay < 3; ++replay) subjects[i].graph.launch(runs.stream());
    runs.wait();
    logits[i] = runs.take_logits();
  }
  if (logits[0] != logits[1]) fail(model.name + ": persistent and chain differ in their results");

  for (uint32_t round = 0; round <= options.rounds; ++round) {  // the first one warms up
    for (Subject& subject : subjects) {
      const double ms = time_replays(runs, subject.graph, options.replays);
      if (round > 0) subject.ms.push_back(ms);
    }
  }
  std::printf("%s: %.1f MB, %u phases; medians of %u x %u replays; results of persistent and chain are equal\n",
              model.name.c_str(), static_cast<double>(runs.bytes()) * 1e-6, runs.shape().phases(), options.rounds,
              options.replays);
  for (const Subject& subject : subjects) {
    const auto [least, most] = std::minmax_element(subject.ms.begin(), subject.ms.end());
    std::printf("  %8.4f ms (%.4f to %.4f)  %5.2f TB/s  %s\n", median(subject.ms), *least, *most,
                static_cast<double>(runs.bytes()) / median(subject.ms) * 1e-9, subject.name.c_str());
  }
  const double a_ms = median(subjects[0].ms), b_ms = median(subjects[1].ms);
  std::printf(
      "  persistent is %.1f%% under the chain, (b - a) / b; a phase costs %.2f us over the plain read, %.2f in the "
      "chain\n",
      100 * (b_ms - a_ms) / b_ms, 1e3 * (a_ms - median(subjects[3].ms)) / runs.shape().phases(),
      1e3 * (b_ms - median(subjects[3].ms)) / runs.shape().phases());
}

const std::vector<Model> kSmall = {{"256 wide", 3, 256, 4, 1000},
                                   {"768 wide", 2, 768, 12, 5000},
                                   {"2048 wide", 1, 2048, 32, 4000},
                                   {"1024, d 128", 2, 1024, 8, 3000}};
const std::vector<Model> kModels = {
    {"125M", 12, 768, 12, 50272}, {"1.3B", 24, 2048, 32, 50272}, {"6.7B", 32, 4096, 32, 50272}};

int run(int count, char** arguments) {
  const Options options = read_options(count, arguments);
  const Device device = open_device();
  if (options.check) {
    for (const Model& model : kSmall) check_model(model, device, options.persistent.cooperative);
    return 0;
  }
  for (const std::string& name : split(options.models)) {
    const auto found = std::find_if(kModels.begin(), kModels.end(), [&](const Model& m) { return m.name == name; });
    if (found == kModels.end()) fail("unknown model: " + name);
    measure(*found, device, options);
  }
  return 0;
}

}  // namespace
}  // namespace optserve::kernels::step_bench

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // what is known is printed, whatever comes after it
  try {
    return optserve::kernels::step_bench::run(count, arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "persistent_step_bench: %s\n", error.what());
    return 1;
  }
}
