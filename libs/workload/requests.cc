#include "workload/requests.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>

#include "base/check.h"

namespace optserve::workload {
namespace {

constexpr TokenId kStart = 2;          // </s>, which starts every OPT prompt
constexpr TokenId kFirstOrdinary = 4;  // the ids below are <s>, <pad>, </s> and <unk>
constexpr double kSigma = 1.0;

// Standard libraries have the same generators but different distributions, so the distributions here are our own.
class Draw {
 public:
  explicit Draw(uint64_t seed) : generator_(seed) {}

  double uniform() { return static_cast<double>(generator_() >> 11) * 0x1p-53; }  // [0, 1)
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log1p(-uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }
  int32_t log_normal(int32_t mean, int32_t max) {
    const double value = std::exp(std::log(mean) - kSigma * kSigma / 2 + kSigma * normal());
    return static_cast<int32_t>(std::lround(std::clamp(value, 1.0, static_cast<double>(max))));
  }
  TokenId token(int32_t vocab) {
    const auto ordinary = static_cast<uint64_t>(vocab - kFirstOrdinary);
    return kFirstOrdinary + static_cast<TokenId>(generator_() % ordinary);
  }

 private:
  std::mt19937_64 generator_;
};

// The seed of a run of a batch. Runs with similar seeds get different ones.
uint64_t seed_of(const BenchSpec& spec, int32_t batch, int32_t run) {
  return spec.seed * 0x9e3779b97f4a7c15ull + static_cast<uint64_t>(batch) * 1'000'003 + static_cast<uint64_t>(run);
}

BenchRequest request(const BenchSpec& spec, Draw& draw, int32_t input_tokens, int32_t output_tokens, int32_t vocab) {
  BenchRequest request;
  request.new_tokens = output_tokens;
  request.sampling = spec.sampling;
  request.sampling.seed = static_cast<uint64_t>(draw.token(INT32_MAX));
  request.prompt.push_back(kStart);
  Draw shared(spec.seed);
  while (static_cast<int32_t>(request.prompt.size()) < input_tokens) {
    const bool is_shared = static_cast<int32_t>(request.prompt.size()) < spec.shared_prefix;
    request.prompt.push_back((is_shared ? shared : draw).token(vocab));
  }
  return request;
}

}  // namespace

std::vector<BenchRequest> make_batch(const BenchSpec& spec, int32_t batch, int32_t run, const ModelBounds& bounds) {
  check(bounds.vocab > kFirstOrdinary, "vocabulary without ordinary ids");
  Draw draw(seed_of(spec, batch, run));
  std::vector<BenchRequest> requests;
  for (int32_t i = 0; i < batch; ++i) {
    requests.push_back(request(spec, draw, spec.input_tokens, spec.output_tokens, bounds.vocab));
  }
  return requests;
}

std::vector<BenchRequest> make_requests(const BenchSpec& spec, int32_t run, const ModelBounds& bounds) {
  if (!spec.mixed_lengths) return make_batch(spec, spec.num_requests, run, bounds);
  check(bounds.vocab > kFirstOrdinary && bounds.context >= 2, "bounds of a model");
  Draw lengths(seed_of(spec, 0, 0));
  Draw draw(seed_of(spec, spec.num_requests, run));
  std::vector<BenchRequest> requests;
  for (int32_t i = 0; i < spec.num_requests; ++i) {
    const int32_t input = lengths.log_normal(spec.input_tokens, bounds.context / 2);
    const int32_t output = lengths.log_normal(spec.output_tokens, bounds.context - input);
    requests.push_back(request(spec, draw, input, output, bounds.vocab));
  }
  return requests;
}

}  // namespace optserve::workload
