// Beam search over continuations of one prompt, as pure bookkeeping: which beams run, which hypotheses have ended, and
// when no better one can come. The caller scores the continuations.
//
// In each round every running beam is extended by its best tokens. Of all these candidates, the best beam_width that do
// not end go on. Those that end and are among the best beam_width enter a bank, which keeps the beam_width hypotheses
// with the best scores, where score = sum of log-probabilities / (new tokens ^ length_penalty). Hugging Face
// transformers defines it in the same way. Diversity: among the continuations of one beam the i-th best (from 0) is
// ranked as if its sum were i * beam_diversity lower (J. Li, W. Monroe, D. Jurafsky, "A Simple, Fast Diverse Decoding
// Algorithm", 2016); scores stay as they are.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "sampling/sampling_params.h"
#include "sampling/token_logprob.h"

namespace optserve::batching {

class BeamSearch {
 public:
  struct Beam {
    std::vector<TokenId> tokens;  // after the prompt
    std::vector<float> logprobs;  // of each token
    float sum = 0;                // of `logprobs`
    double score = 0;             // once the beam has ended
    TokenId ended_by = -1;        // the ending id, which is the last of `tokens`; -1: it has the full length
  };

  // Only the parameters of beam search are used of `params`. `ends` are the ids that end a hypothesis, and
  // `tokens_max`, above 0, is the maximum number of new tokens.
  BeamSearch(const sampling::SamplingParams& params, std::vector<TokenId> ends, int32_t tokens_max);

  // The number of its best tokens by which each running beam must be extended so that none of the best candidates is
  // missed.
  static int32_t candidates_wanted(int32_t beam_width, size_t num_ends);

  // All running beams have the same length. Empty once the search is over.
  const std::vector<Beam>& running() const { return running_; }
  // candidates[i] are the tokens that may extend running()[i], best first. There is at least one in total.
  void advance(std::span<const std::vector<sampling::TokenLogprob>> candidates);
  // Best first. Fewer than beam_width only if there were no more candidates.
  const std::vector<Beam>& ended() const { return ended_; }

 private:
  struct Candidate {
    size_t beam = 0;
    sampling::TokenLogprob token;
    float sum = 0;
    float ranked_by = 0;
  };

  std::vector<Candidate> rank(std::span<const std::vector<sampling::TokenLogprob>> candidates) const;
  Beam extended(const Candidate& candidate) const;
  double score(float sum, size_t length) const;
  void bank(Beam beam, TokenId ended_by);
  bool is_over() const;

  sampling::SamplingParams params_;
  std::vector<TokenId> ends_;
  size_t tokens_max_;
  std::vector<Beam> running_, ended_;
};

}  // namespace optserve::batching
