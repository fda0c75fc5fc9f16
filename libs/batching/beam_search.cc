#include "batching/beam_search.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace optserve::batching {

BeamSearch::BeamSearch(const sampling::SamplingParams& params, std::vector<TokenId> ends, int32_t tokens_max)
    : params_(params), ends_(std::move(ends)), tokens_max_(static_cast<size_t>(tokens_max)), running_(1) {
  check(params.beam_width > 1 && tokens_max > 0, "a beam search has several beams and something to search");
}

int32_t BeamSearch::candidates_wanted(int32_t beam_width, size_t num_ends) {
  return beam_width + std::max(beam_width, static_cast<int32_t>(num_ends));
}

// All candidates, the best first. Among equals, that of the better beam comes first, and within a beam the better
// token.
std::vector<BeamSearch::Candidate> BeamSearch::rank(
    std::span<const std::vector<sampling::TokenLogprob>> candidates) const {
  std::vector<Candidate> ranked;
  for (size_t beam = 0; beam < running_.size(); ++beam) {
    for (size_t i = 0; i < candidates[beam].size(); ++i) {
      const float sum = running_[beam].sum + candidates[beam][i].logprob;
      ranked.push_back({beam, candidates[beam][i], sum, sum - params_.beam_diversity * static_cast<float>(i)});
    }
  }
  std::ranges::stable_sort(ranked, [](const Candidate& a, const Candidate& b) { return a.ranked_by > b.ranked_by; });
  return ranked;
}

BeamSearch::Beam BeamSearch::extended(const Candidate& candidate) const {
  Beam beam = running_[candidate.beam];
  beam.tokens.push_back(candidate.token.id);
  beam.logprobs.push_back(candidate.token.logprob);
  beam.sum = candidate.sum;
  return beam;
}

double BeamSearch::score(float sum, size_t length) const {
  return static_cast<double>(sum) /
         std::pow(static_cast<double>(length), static_cast<double>(params_.beam_length_penalty));
}

void BeamSearch::bank(Beam beam, TokenId ended_by) {
  beam.ended_by = ended_by;
  beam.score = score(beam.sum, beam.tokens.size());
  const auto place = std::ranges::upper_bound(ended_, beam.score, std::ranges::greater(), &Beam::score);
  ended_.insert(place, std::move(beam));
  if (ended_.size() > static_cast<size_t>(params_.beam_width)) ended_.pop_back();
}

void BeamSearch::advance(std::span<const std::vector<sampling::TokenLogprob>> candidates) {
  check_eq(candidates.size(), running_.size(), "candidates of each running beam");
  const auto width = static_cast<size_t>(params_.beam_width);
  const bool last = running_.front().tokens.size() + 1 == tokens_max_;
  std::vector<Beam> next;
  size_t place = 0;
  for (const Candidate& candidate : rank(candidates)) {
    const bool ends = std::ranges::find(ends_, candidate.token.id) != ends_.end();
    if ((ends || last) && place < width) bank(extended(candidate), ends ? candidate.token.id : -1);
    if (!ends && !last && next.size() < width) next.push_back(extended(candidate));
    ++place;
  }
  running_ = std::move(next);
  if (is_over()) running_.clear();
}

bool BeamSearch::is_over() const {
  if (running_.empty()) return true;
  if (ended_.size() < static_cast<size_t>(params_.beam_width)) return false;
  if (params_.beam_early_stopping == 1) return true;
  // The best score that a running beam can still reach, with the length penalty of its current or of the full length.
  const bool any_length = params_.beam_early_stopping == 2 && params_.beam_length_penalty > 0.0f;
  const size_t length = any_length ? tokens_max_ : running_.front().tokens.size();
  const float best = std::ranges::max_element(running_, {}, &Beam::sum)->sum;
  return score(best, length) <= ended_.back().score;
}

}  // namespace optserve::batching
