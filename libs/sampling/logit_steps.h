// From logits to a token, on the CPU: the chain of steps that every backend follows. Its order is
//
//   1. bias                     of the rules, added to the logits
//   2. repetition penalty       of prompt and generated ids, once for each id
//   3. presence and frequency   of generated ids; of the ids of the prompt as well, if asked for
//   4. masks                    pad, padding of the vocabulary; banned ids, ids outside a list of allowed ones, ids
//                               that would complete a bad word; the end-of-text id and stop ids while too few
//                               tokens are generated
//   5. greedy                   temperature 0 or top-k 1: the largest logit, the lowest id among equals; done
//   6. temperature              logits divided by it
//   7. min-p                    keeps ids whose probability is at least that share of the best one's
//   8. top-k                    keeps the k largest logits, lower ids first among equals
//   9. top-p                    keeps of these the fewest ids, largest first, whose probabilities add up to p. With a
//                               decay, p becomes max(p * decay, min) for each token that was generated since the last
//                               reset id, not counting the first `top_p_decay_after` of them
//  10. typical-p                of these, renormalised, the fewest ids whose probabilities add up to it, in the order
//                               of |-log p - entropy| (as floats), lower ids first among equals
//  11. draw                     by the inverse of the distribution function, in the order of ids, with the uniform
//                               number of (seed, position)
//
// As in vLLM, penalties come before the temperature, and the id that crosses p is kept. The other profiles differ as
// follows:
//
//   kFasterTransformer   temperature + 1e-6 where it is not 1, and before the penalties; the presence penalty counts
//                        the prompt's ids too; of the id that crosses p only the part of its weight below p counts
//   kMetaseq             temperature, of at least 1e-6, before the penalties; penalties below 0 do nothing; there is no
//                        repetition penalty
//
// In no profile does a temperature of 0 divide anything. Equal inputs give equal tokens, whatever else is sampled at
// the same time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sampling/packed_rules.h"
#include "sampling/sample_row.h"

namespace optserve::sampling {

struct DrawnToken {
  TokenId token = -1;  // -1: a logit was NaN or infinite, or nothing may be drawn
  float logprob = 0;   // log softmax of the unedited logits, over all real ids
};

// The working memory of one sampling thread. It is allocated once and serves any number of rows.
class SamplerScratch {
 public:
  explicit SamplerScratch(int64_t vocab);
  int64_t vocab() const { return static_cast<int64_t>(logits.size()); }

  struct Candidate {
    float logit;
    float weight;
    TokenId id;
  };
  std::vector<float> logits;
  std::vector<float> weights;        // exp((logit - largest) / temperature)
  std::vector<int32_t> occurrences;  // zero between steps
  std::vector<double> block_sums;
  std::vector<float> block_maxima, ranked_maxima;
  std::vector<Candidate> candidates;  // the ids among which a truncation cuts
};

// The whole chain for one row. `logits` has at least ids.vocab_real elements and is not changed.
DrawnToken draw_token(std::span<const float> logits, const SampleRow& row, const DrawableIds& ids,
                      SamplerScratch& scratch);

// The ids with the largest logits, lower ids first among equals, and their log softmax. Fills `ids`, with -1 if there
// are not enough of them, and with nothing but -1 if a logit is not finite.
void best_tokens(std::span<const float> logits, std::span<TokenId> ids, std::span<float> logprobs,
                 SamplerScratch& scratch);

// The same for the ids that a row may draw, in the order of its logits after biases, penalties and masks. A
// log-probability is such a logit minus the log of the sum of exponentials of the original logits.
void best_allowed_tokens(std::span<const float> logits, const SampleRow& row, const DrawableIds& drawable,
                         std::span<TokenId> ids, std::span<float> logprobs, SamplerScratch& scratch);

// log softmax(logits)[target]; NaN if a logit is not finite.
float log_probability(std::span<const float> logits, TokenId target);

// The steps, in the order of the chain; `logits` and `weights` are those of the real ids only.
namespace logit_steps {

// Adds the biases of the rules.
void bias(std::span<float> logits, const RuleView& rules);
// For each distinct id of `history`: l > 0 ? l / penalty : l * penalty, clamped to finite floats.
void repetition_penalty(std::span<float> logits, std::span<const TokenId> history, float penalty,
                        SamplerScratch& scratch);
// For each distinct id of `used`: l -= presence + occurrences * frequency.
void presence_and_frequency(std::span<float> logits, std::span<const TokenId> used, float presence, float frequency,
                            SamplerScratch& scratch);
// Sets the logits of ids that may not be drawn to -infinity.
void mask(std::span<float> logits, const SampleRow& row, const DrawableIds& ids);
// Id of the largest logit, the lowest among equals; -1 if all are -infinity.
TokenId greedy(std::span<const float> logits);
// weights[i] = exp((logits[i] - largest logit) / temperature).
void weigh(std::span<const float> logits, float temperature, std::span<float> weights);
// Sets logits to -infinity and weights to 0 where a weight is below `p` (the largest is 1).
void min_p(std::span<float> logits, std::span<float> weights, float p);
// Does the same to all but the k best ids.
void top_k(std::span<float> logits, std::span<float> weights, int64_t k, SamplerScratch& scratch);
// The top-p of a row after its decay.
float effective_top_p(const SampleRow& row);
// How much weight the id that crosses a limit keeps.
enum class Boundary : uint8_t { kWhole, kPart };
// Does the same to all but the smallest set of best ids that has the share `p` of all weight. With kPart, the worst of
// them keeps only as much weight as brings the set to `p`.
void top_p(std::span<float> logits, std::span<float> weights, float p, Boundary boundary, SamplerScratch& scratch);
// Does the same to all but the smallest set of ids that has the share `p` of all weight. Ids whose log weight is
// nearest to its expected value come first, lower ids first among equals.
void typical_p(std::span<float> logits, std::span<float> weights, float p, SamplerScratch& scratch);
// The first id whose running sum of weights reaches `uniform` of the total; uniform in (0, 1].
TokenId draw(std::span<const float> weights, double uniform, SamplerScratch& scratch);

}  // namespace logit_steps
}  // namespace optserve::sampling
