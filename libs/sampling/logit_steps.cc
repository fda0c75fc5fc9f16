#include "sampling/logit_steps.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <functional>
#include <limits>

#include "base/check.h"
#include "sampling/random.h"
#include "sampling/scan.h"

namespace optserve::sampling {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

LogitRange range_of(std::span<const float> logits) { return widest_scan().range(logits.data(), logits.size()); }

double log_sum_exp(std::span<const float> logits, float largest) {
  return largest + std::log(widest_scan().exponentials(logits.data(), logits.size(), largest, 1.0f, nullptr));
}

float finite_logprob(double logprob) { return static_cast<float>(std::max(logprob, -double{FLT_MAX})); }

// Where a truncation ends: logits above `logit` stay, and among those equal to it the first `equals`, in order of ids.
struct Cut {
  float logit;
  int64_t equals;
};

void apply(const Cut& cut, std::span<float> logits, std::span<float> weights) {
  widest_scan().cut_below(logits.data(), weights.data(), logits.size(), cut.logit);
  int64_t equals = cut.equals;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] != cut.logit || equals-- > 0) continue;
    logits[i] = kMinusInfinity;
    weights[i] = 0;
  }
}

using Candidate = SamplerScratch::Candidate;

bool is_better(const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

// The cut that keeps the first `kept` candidates, of which the last is the worst.
Cut cut_after(std::span<const Candidate> candidates, size_t kept) {
  Cut cut{candidates[kept - 1].logit, 0};
  for (const Candidate& candidate : candidates.first(kept)) cut.equals += candidate.logit == cut.logit;
  return cut;
}

size_t count_blocks(size_t n, size_t block) { return (n + block - 1) / block; }

// Fills scratch.candidates with the ids whose `values`, which are logits or weights, are at least `floor` and above
// -infinity. scratch.block_maxima must be those of the same values.
void collect(std::span<const float> values, float floor, std::span<const float> logits, std::span<const float> weights,
             SamplerScratch& scratch) {
  scratch.candidates.clear();
  for (size_t block = 0; block < count_blocks(values.size(), kMaxBlock); ++block) {
    if (scratch.block_maxima[block] < floor) continue;
    for (size_t i = block * kMaxBlock; i < std::min((block + 1) * kMaxBlock, values.size()); ++i) {
      if (values[i] < floor || logits[i] == kMinusInfinity) continue;
      scratch.candidates.push_back({logits[i], weights[i], static_cast<TokenId>(i)});
    }
  }
}

// Fills scratch.candidates with the `wanted` best ids, and perhaps with more.
void collect_best(std::span<const float> logits, std::span<const float> weights, size_t wanted,
                  SamplerScratch& scratch) {
  const size_t blocks = count_blocks(logits.size(), kMaxBlock);
  widest_scan().block_maxima(logits.data(), logits.size(), scratch.block_maxima.data());
  // If k blocks have a logit of at least x, then at least k ids do, and the k best are among those.
  float floor = kMinusInfinity;
  if (wanted <= blocks) {
    const std::span<float> ranked = std::span(scratch.ranked_maxima).first(blocks);
    std::copy_n(scratch.block_maxima.begin(), blocks, ranked.begin());
    std::nth_element(ranked.begin(), ranked.begin() + static_cast<ptrdiff_t>(wanted - 1), ranked.end(),
                     std::greater<>());
    floor = ranked[wanted - 1];
  }
  collect(logits, floor, logits, weights, scratch);
}

// Moves the fewest best candidates that together weigh at least `wanted` to the front and returns their number. It
// halves the range that contains the last of them, so that it reads each candidate about twice and sorts none.
size_t select_weight(std::span<Candidate> candidates, double wanted) {
  size_t low = 0, high = candidates.size();  // the last one kept is in [low, high)
  double before = 0;                         // weight of [0, low)
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;  // [low, middle) becomes the better half
    std::nth_element(candidates.begin() + static_cast<ptrdiff_t>(low),
                     candidates.begin() + static_cast<ptrdiff_t>(middle),
                     candidates.begin() + static_cast<ptrdiff_t>(high), is_better);
    double here = 0;
    for (const Candidate& candidate : candidates.subspan(low, middle - low)) {
      here += static_cast<double>(candidate.weight);
    }
    if (before + here >= wanted) {
      high = middle;
    } else {
      before += here;
      low = middle;
    }
  }
  return low + 1;
}

}  // namespace

SamplerScratch::SamplerScratch(int64_t vocab)
    : logits(static_cast<size_t>(vocab)),
      weights(static_cast<size_t>(vocab)),
      occurrences(static_cast<size_t>(vocab)),
      block_sums(count_blocks(logits.size(), kSumBlock)),
      block_maxima(count_blocks(logits.size(), kMaxBlock)),
      ranked_maxima(block_maxima.size()) {
  candidates.reserve(static_cast<size_t>(vocab));
}

namespace logit_steps {

TokenId greedy(std::span<const float> logits) {
  const float largest = range_of(logits).largest;
  if (largest == kMinusInfinity) return -1;
  return static_cast<TokenId>(std::ranges::find(logits, largest) - logits.begin());
}

void weigh(std::span<const float> logits, float temperature, std::span<float> weights) {
  const float largest = range_of(logits).largest;
  // A temperature too small to be inverted is treated as the smallest one that can be.
  const float scale = std::min(1.0f / temperature, FLT_MAX);
  widest_scan().exponentials(logits.data(), logits.size(), largest, scale, weights.data());
}

void min_p(std::span<float> logits, std::span<float> weights, float p) {
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] >= p) continue;
    logits[i] = kMinusInfinity;
    weights[i] = 0;
  }
}

float effective_top_p(const SampleRow& row) {
  const SamplingParams& params = row.params;
  if (params.top_p_decay == 1.0f && params.top_p_min <= params.top_p) return params.top_p;
  const auto resets = RuleView(row.rules).reset_ids();
  int64_t decays = -params.top_p_decay_after;
  for (auto i = static_cast<int64_t>(row.history.size()); i > row.prompt_tokens; --i, ++decays) {
    const TokenId id = row.history[static_cast<size_t>(i - 1)];
    if (std::ranges::find(resets, id) != resets.end()) break;
  }
  float p = params.top_p;
  for (; decays > 0; --decays) {
    const float next = std::max(p * params.top_p_decay, params.top_p_min);
    if (next == p) break;
    p = next;
  }
  return p;
}

void top_k(std::span<float> logits, std::span<float> weights, int64_t k, SamplerScratch& scratch) {
  const auto wanted = static_cast<size_t>(k);
  collect_best(logits, weights, wanted, scratch);
  std::vector<Candidate>& candidates = scratch.candidates;
  if (candidates.size() < wanted) return;
  std::nth_element(candidates.begin(), candidates.begin() + static_cast<ptrdiff_t>(wanted - 1), candidates.end(),
                   is_better);
  apply(cut_after(candidates, wanted), logits, weights);
}

void top_p(std::span<float> logits, std::span<float> weights, float p, Boundary boundary, SamplerScratch& scratch) {
  if (weights.empty()) return;
  widest_scan().running_sums(weights.data(), weights.size(), scratch.block_sums.data());
  const double total = scratch.block_sums[count_blocks(weights.size(), kSumBlock) - 1];
  // All ids below this weight together have less than half of the weight that may be left out.
  const double negligible = (1.0 - static_cast<double>(p)) * total / static_cast<double>(weights.size()) / 2;
  widest_scan().block_maxima(weights.data(), weights.size(), scratch.block_maxima.data());
  collect(weights, static_cast<float>(negligible), logits, weights, scratch);
  if (scratch.candidates.empty()) return;
  const double wanted = static_cast<double>(p) * total;
  const size_t kept = select_weight(scratch.candidates, wanted);
  apply(cut_after(scratch.candidates, kept), logits, weights);
  if (boundary == Boundary::kWhole || kept == 1) return;  // a single id is drawn, however small its part is
  double before = 0;
  for (size_t i = 0; i + 1 < kept; ++i) before += static_cast<double>(scratch.candidates[i].weight);
  const Candidate& last = scratch.candidates[kept - 1];
  weights[static_cast<size_t>(last.id)] = std::clamp(static_cast<float>(wanted - before), 0.0f, last.weight);
}

void typical_p(std::span<float> logits, std::span<float> weights, float p, SamplerScratch& scratch) {
  double total = 0, log_sum = 0;
  for (const float weight : weights) {
    if (weight == 0.0f) continue;
    total += static_cast<double>(weight);
    log_sum += static_cast<double>(weight) * std::log(static_cast<double>(weight));
  }
  if (total == 0) return;
  // The distance of -log p from the entropy is the distance of the log weight from this.
  const double expected = log_sum / total;
  scratch.candidates.clear();
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0.0f) continue;
    const double distance = std::abs(std::log(static_cast<double>(weights[i])) - expected);
    scratch.candidates.push_back({static_cast<float>(-distance), weights[i], static_cast<TokenId>(i)});
  }
  const size_t kept = select_weight(scratch.candidates, static_cast<double>(p) * total);
  for (size_t i = kept; i < scratch.candidates.size(); ++i) {
    const auto id = static_cast<size_t>(scratch.candidates[i].id);
    logits[id] = kMinusInfinity;
    weights[id] = 0;
  }
}

TokenId draw(std::span<const float> weights, double uniform, SamplerScratch& scratch) {
  widest_scan().running_sums(weights.data(), weights.size(), scratch.block_sums.data());
  const size_t blocks = count_blocks(weights.size(), kSumBlock);
  if (blocks == 0) return -1;
  const double target = uniform * scratch.block_sums[blocks - 1];
  size_t block = 0;
  while (block + 1 < blocks && scratch.block_sums[block] < target) ++block;
  double running = block == 0 ? 0.0 : scratch.block_sums[block - 1];
  TokenId last = -1;  // due to rounding, the running sum may stay below a target that the block's sum reaches
  for (size_t i = block * kSumBlock; i < std::min((block + 1) * kSumBlock, weights.size()); ++i) {
    if (weights[i] == 0.0f) continue;
    running += static_cast<double>(weights[i]);
    last = static_cast<TokenId>(i);
    if (running >= target) break;
  }
  return last;
}

}  // namespace logit_steps

namespace {

bool divides_first(const SamplingParams& params) {
  return params.profile != SamplingProfile::kDefault && params.temperature > 0.0f;
}

void divide_by_temperature(std::span<float> logits, const SamplingParams& params) {
  if (params.temperature == 1.0f) return;
  // With a smaller temperature the quotients would exceed the largest float and become equal.
  constexpr float kLeast = 1e-6f;
  const bool faster_transformer = params.profile == SamplingProfile::kFasterTransformer;
  const float temperature = faster_transformer ? params.temperature + kLeast : std::max(params.temperature, kLeast);
  for (float& logit : logits) logit = std::clamp(logit / temperature, -FLT_MAX, FLT_MAX);
}

void penalise(std::span<float> logits, const SampleRow& row, SamplerScratch& scratch) {
  const SamplingParams& params = row.params;
  const auto prompt = row.history.first(static_cast<size_t>(row.prompt_tokens));
  const auto generated = row.history.subspan(static_cast<size_t>(row.prompt_tokens));
  const bool metaseq = params.profile == SamplingProfile::kMetaseq;
  const auto charge = [&](std::span<const TokenId> used, float presence, float frequency) {
    if (metaseq) {
      presence = std::max(presence, 0.0f);
      frequency = std::max(frequency, 0.0f);
    }
    if (presence == 0.0f && frequency == 0.0f) return;
    logit_steps::presence_and_frequency(logits, used, presence, frequency, scratch);
  };
  if (params.repetition_penalty != 1.0f && !metaseq) {
    logit_steps::repetition_penalty(logits, row.history, params.repetition_penalty, scratch);
  }
  if (params.profile == SamplingProfile::kFasterTransformer) {
    charge(row.history, params.presence_penalty, 0);
    charge(generated, 0, params.frequency_penalty);
  } else {
    charge(generated, params.presence_penalty, params.frequency_penalty);
  }
  charge(prompt, params.prompt_presence_penalty, params.prompt_frequency_penalty);
}

TokenId draw_weighed(std::span<float> logits, std::span<float> weights, const SampleRow& row, SamplerScratch& scratch) {
  const SamplingParams& params = row.params;
  logit_steps::weigh(logits, divides_first(params) ? 1.0f : params.temperature, weights);
  if (params.min_p > 0.0f) logit_steps::min_p(logits, weights, params.min_p);
  if (params.top_k > 0) logit_steps::top_k(logits, weights, params.top_k, scratch);
  if (const float p = logit_steps::effective_top_p(row); p < 1.0f) {
    const auto boundary = params.profile == SamplingProfile::kFasterTransformer ? logit_steps::Boundary::kPart
                                                                                : logit_steps::Boundary::kWhole;
    logit_steps::top_p(logits, weights, p, boundary, scratch);
  }
  if (params.typical_p < 1.0f) logit_steps::typical_p(logits, weights, params.typical_p, scratch);
  return logit_steps::draw(weights, uniform_at(params.seed, static_cast<uint64_t>(row.position)), scratch);
}

// Does the first four steps, and leaves the logits to draw from in scratch.logits.
std::span<float> edit(std::span<const float> original, const SampleRow& row, const DrawableIds& ids,
                      SamplerScratch& scratch) {
  const std::span<float> logits = std::span(scratch.logits).first(original.size());
  std::ranges::copy(original, logits.begin());
  if (!row.rules.empty()) logit_steps::bias(logits, RuleView(row.rules));
  if (divides_first(row.params)) divide_by_temperature(logits, row.params);
  penalise(logits, row, scratch);
  logit_steps::mask(logits, row, ids);
  return logits;
}

// The best of `logits`, best first, minus `normalizer`.
void take_best(std::span<const float> logits, double normalizer, std::span<TokenId> ids, std::span<float> logprobs,
               SamplerScratch& scratch) {
  collect_best(logits, logits, ids.size(), scratch);
  std::vector<SamplerScratch::Candidate>& candidates = scratch.candidates;
  const size_t count = std::min(ids.size(), candidates.size());
  std::ranges::partial_sort(candidates, candidates.begin() + static_cast<ptrdiff_t>(count), is_better);
  for (size_t i = 0; i < count; ++i) {
    ids[i] = candidates[i].id;
    logprobs[i] = finite_logprob(static_cast<double>(candidates[i].logit) - normalizer);
  }
}

}  // namespace

DrawnToken draw_token(std::span<const float> all_logits, const SampleRow& row, const DrawableIds& ids,
                      SamplerScratch& scratch) {
  const auto vocab = static_cast<size_t>(ids.vocab_real);
  check(vocab <= all_logits.size() && ids.vocab_real <= scratch.vocab(), "more real ids than logits or scratch");
  const auto original = all_logits.first(vocab);
  const LogitRange range = range_of(original);
  if (!range.finite) return {};

  const std::span<float> logits = edit(original, row, ids, scratch);
  DrawnToken drawn;
  drawn.token = logit_steps::greedy(logits);
  if (drawn.token >= 0 && !row.params.is_greedy()) {
    drawn.token = draw_weighed(logits, std::span(scratch.weights).first(vocab), row, scratch);
  }
  if (drawn.token < 0) return {};
  drawn.logprob = finite_logprob(original[static_cast<size_t>(drawn.token)] - log_sum_exp(original, range.largest));
  return drawn;
}

void best_tokens(std::span<const float> logits, std::span<TokenId> ids, std::span<float> logprobs,
                 SamplerScratch& scratch) {
  check_eq(ids.size(), logprobs.size(), "room for ids and for log-probabilities");
  check(static_cast<int64_t>(logits.size()) <= scratch.vocab(), "more logits than scratch");
  std::ranges::fill(ids, -1);
  std::ranges::fill(logprobs, 0.0f);
  const LogitRange range = range_of(logits);
  if (!range.finite || ids.empty()) return;
  take_best(logits, log_sum_exp(logits, range.largest), ids, logprobs, scratch);
}

void best_allowed_tokens(std::span<const float> all_logits, const SampleRow& row, const DrawableIds& drawable,
                         std::span<TokenId> ids, std::span<float> logprobs, SamplerScratch& scratch) {
  check_eq(ids.size(), logprobs.size(), "room for ids and for log-probabilities");
  check(drawable.vocab_real <= scratch.vocab(), "more real ids than scratch");
  std::ranges::fill(ids, -1);
  std::ranges::fill(logprobs, 0.0f);
  const auto original = all_logits.first(static_cast<size_t>(drawable.vocab_real));
  const LogitRange range = range_of(original);
  if (!range.finite || ids.empty()) return;
  const double normalizer = log_sum_exp(original, range.largest);
  take_best(edit(original, row, drawable, scratch), normalizer, ids, logprobs, scratch);
}

float log_probability(std::span<const float> logits, TokenId target) {
  check(target >= 0 && static_cast<size_t>(target) < logits.size(), "log probability of an id outside the vocabulary");
  const LogitRange range = range_of(logits);
  if (!range.finite) return std::numeric_limits<float>::quiet_NaN();
  return finite_logprob(logits[static_cast<size_t>(target)] - log_sum_exp(logits, range.largest));
}

}  // namespace optserve::sampling
