// Beam search over continuations of one prompt, as pure bookkeeping: which beams run, which hypotheses have ended, when
// no better one can come. Who scores continuations, and how, is the caller's matter.
//
// Each round every running beam is extended by its best tokens. Of all candidates, the beam_width best that do not end
// run on; those that end and are among the beam_width best enter the bank, which keeps the beam_width best
// by score = sum of log-probabilities / (new tokens ^ length_penalty). Same definitions as transformers' beam search.
// Diversity: among the continuations of one beam the i-th best (from 0) is ranked as if its sum were i * beam_diversity
// lower (J. Li, W. Monroe, D. Jurafsky, "A Simple, Fast Diverse Decoding Algorithm", 2016); scores stay as they are.
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
    std::vector<float> logprobs;  // of each of them
    float sum = 0;                // of those
    double score = 0;             // of an ended one
    TokenId ended_by = -1;        // the ending id, which is the last of `tokens`; -1: it has the full length
  };

  // `params`: beam_width and the rest of its group. `ends`: ids that end a hypothesis. `tokens_max`: new tokens, above
  // 0.
  BeamSearch(const sampling::SamplingParams& params, std::vector<TokenId> ends, int32_t tokens_max);

  // How many best tokens each running beam has to be extended by, so that none of the best candidates is missed.
  static int32_t candidates_wanted(int32_t beam_width, size_t num_ends);

  // All of one length. Empty once the search is over.
  const std::vector<Beam>& running() const { return running_; }
  // candidates[i] extend running()[i], best first. Together there is at least one.
  void advance(std::span<const std::vector<sampling::TokenLogprob>> candidates);
  // Best first. Fewer than beam_width only where there were no more candidates.
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
