#include "batching/beam_search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

namespace optserve::batching {
namespace beam_search_test {

using Tokens = std::vector<TokenId>;
using testing::ElementsAre;

constexpr TokenId kEnd = 0;

// A model whose log-probabilities are random but depend only on the tokens before.
class RandomModel {
 public:
  RandomModel(uint64_t seed, TokenId vocab) : seed_(seed), vocab_(vocab) {}

  std::vector<float> logprobs(const Tokens& before) const {
    uint64_t state = seed_;
    for (const TokenId id : before) {
      state = state * 6364136223846793005u + static_cast<uint64_t>(id) + 1442695040888963407u;
    }
    std::mt19937_64 random(state);
    std::vector<double> logits(static_cast<size_t>(vocab_));
    double total = 0;
    for (double& logit : logits) logit = std::normal_distribution<double>(0, 2)(random), total += std::exp(logit);
    std::vector<float> result;
    for (const double logit : logits) result.push_back(static_cast<float>(logit - std::log(total)));
    return result;
  }
  std::vector<sampling::TokenLogprob> best(const Tokens& before, size_t count) const {
    std::vector<sampling::TokenLogprob> all;
    for (const float logprob : logprobs(before)) all.push_back({static_cast<TokenId>(all.size()), logprob});
    std::ranges::stable_sort(all, std::ranges::greater(), &sampling::TokenLogprob::logprob);
    all.resize(std::min(count, all.size()));
    return all;
  }
  TokenId vocab() const { return vocab_; }

 private:
  uint64_t seed_;
  TokenId vocab_;
};

std::vector<BeamSearch::Beam> search(const RandomModel& model, const sampling::SamplingParams& params, Tokens ends,
                                     int32_t tokens_max) {
  const auto wanted = static_cast<size_t>(BeamSearch::candidates_wanted(params.beam_width, ends.size()));
  BeamSearch beams(params, std::move(ends), tokens_max);
  while (!beams.running().empty()) {
    std::vector<std::vector<sampling::TokenLogprob>> candidates;
    for (const BeamSearch::Beam& beam : beams.running()) candidates.push_back(model.best(beam.tokens, wanted));
    beams.advance(candidates);
  }
  return beams.ended();
}

// The definition of Hugging Face transformers, computed from whole distributions. In each round it takes the best 2 *
// width of all continuations of all beams. Those that end and are among the first `width` compete for the bank; the
// others compete to go on.
struct Reference {
  struct Beam {
    Tokens tokens;
    float sum = 0;
    double score = 0;
  };
  const RandomModel& model;
  sampling::SamplingParams params;
  Tokens ends;
  int32_t tokens_max;
  std::vector<Beam> running = {{}}, bank = {};

  double score(float sum, size_t length) const {
    return static_cast<double>(sum) /
           std::pow(static_cast<double>(length), static_cast<double>(params.beam_length_penalty));
  }
  bool can_improve(size_t length) const {
    if (bank.size() < static_cast<size_t>(params.beam_width)) return true;
    if (params.beam_early_stopping == 1) return false;
    const bool never = params.beam_early_stopping == 2 && params.beam_length_penalty > 0;
    return score(running.front().sum, never ? static_cast<size_t>(tokens_max) : length) > bank.back().score;
  }
  std::vector<Beam> run() {
    const auto width = static_cast<size_t>(params.beam_width);
    for (int32_t length = 1; length <= tokens_max; ++length) {
      std::vector<Beam> all;
      for (const Beam& beam : running) {
        const auto logprobs = model.logprobs(beam.tokens);
        for (size_t id = 0; id < logprobs.size(); ++id) {
          all.push_back({beam.tokens, beam.sum + logprobs[id]});
          all.back().tokens.push_back(static_cast<TokenId>(id));
        }
      }
      std::ranges::stable_sort(all, std::ranges::greater(), &Beam::sum);
      running.clear();
      for (size_t i = 0; i < all.size(); ++i) {
        const bool ends_here = std::ranges::find(ends, all[i].tokens.back()) != ends.end();
        if ((ends_here || length == tokens_max) && i < width) {
          bank.push_back(all[i]);
          bank.back().score = score(all[i].sum, all[i].tokens.size());
        } else if (!ends_here && running.size() < width) {
          running.push_back(all[i]);
        }
      }
      std::ranges::stable_sort(bank, std::ranges::greater(), &Beam::score);
      bank.resize(std::min(bank.size(), width));
      if (running.empty() || !can_improve(static_cast<size_t>(length))) break;
    }
    return bank;
  }
};

TEST(BeamSearch, GivesTheHypothesesOfTheDefinition) {
  const uint64_t first = std::random_device()();
  RecordProperty("seed", std::to_string(first));
  int early = 0;
  for (uint64_t seed = first; seed < first + 2'000; ++seed) {
    std::mt19937_64 random(seed);
    const auto pick = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
    sampling::SamplingParams params;
    params.beam_width = pick(2, 10);
    params.beam_length_penalty = static_cast<float>(pick(-2, 4)) * 0.5f;
    params.beam_early_stopping = pick(0, 2);
    const RandomModel model(seed, pick(3, 40));
    Tokens ends{kEnd};
    if (pick(0, 2) == 0) ends.push_back(model.vocab() - 1);
    const int tokens_max = pick(1, 12);
    const auto found = search(model, params, ends, tokens_max);
    const auto expected = Reference{model, params, ends, tokens_max}.run();
    ASSERT_EQ(found.size(), expected.size()) << "seed " << seed;
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(found[i].tokens, expected[i].tokens) << "seed " << seed << ", hypothesis " << i;
      ASSERT_EQ(found[i].score, expected[i].score) << "seed " << seed;
      ASSERT_EQ(found[i].sum, expected[i].sum) << "seed " << seed;
      const bool ended = std::ranges::find(ends, found[i].tokens.back()) != ends.end();
      EXPECT_EQ(found[i].ended_by, ended ? found[i].tokens.back() : -1);
      early += ended;
    }
  }
  EXPECT_GT(early, 1'000);
}

// With as many beams as prefixes nothing is left out, so the best of all texts is found.
TEST(BeamSearch, WideEnoughItFindsTheBestOfAll) {
  const uint64_t first = std::random_device()();
  RecordProperty("seed", std::to_string(first));
  for (uint64_t seed = first; seed < first + 200; ++seed) {
    const RandomModel model(seed, 3);
    sampling::SamplingParams params;
    params.beam_width = 9;
    params.beam_early_stopping = 2;
    params.beam_length_penalty = 0.7f;
    double best = -1e30;
    Tokens best_tokens;
    const auto visit = [&](const auto& self, const Tokens& tokens, float sum) -> void {
      const auto logprobs = model.logprobs(tokens);
      for (TokenId id = 0; id < 3; ++id) {
        Tokens longer = tokens;
        longer.push_back(id);
        const float longer_sum = sum + logprobs[static_cast<size_t>(id)];
        if (id != kEnd && longer.size() < 3) {
          self(self, longer, longer_sum);
          continue;
        }
        const double score = static_cast<double>(longer_sum) / std::pow(static_cast<double>(longer.size()), 0.7f);
        if (score > best) best = score, best_tokens = longer;
      }
    };
    visit(visit, {}, 0);
    EXPECT_EQ(search(model, params, {kEnd}, 3).front().tokens, best_tokens) << "seed " << seed;
  }
}

using Round = std::vector<std::vector<sampling::TokenLogprob>>;

// Tokens with given log-probabilities, best first.
std::vector<sampling::TokenLogprob> tokens(std::initializer_list<sampling::TokenLogprob> list) { return list; }

TEST(BeamSearch, ALengthPenaltyPrefersShorterOrLonger) {
  for (const auto& [penalty, first] : {std::pair{0.0f, Tokens{kEnd}}, {2.0f, Tokens{5, 5}}}) {
    sampling::SamplingParams params;
    params.beam_width = 2;
    params.beam_length_penalty = penalty;
    BeamSearch beams(params, {kEnd}, 2);
    beams.advance(Round{tokens({{kEnd, -1.0f}, {5, -1.5f}, {6, -9.0f}, {7, -10.0f}})});
    beams.advance(Round{tokens({{5, -0.5f}, {6, -3.0f}}), tokens({{5, -0.5f}, {6, -3.0f}})});
    EXPECT_EQ(beams.ended().front().tokens, first);
    EXPECT_TRUE(beams.running().empty());
  }
}

TEST(BeamSearch, EarlyStoppingEndsWithAFullBank) {
  for (const int32_t early : {0, 1}) {
    sampling::SamplingParams params;
    params.beam_width = 2;
    params.beam_early_stopping = early;
    BeamSearch beams(params, {kEnd, 1}, 10);
    beams.advance(Round{tokens({{kEnd, -3.0f}, {1, -3.1f}, {5, -3.2f}, {6, -3.3f}})});
    EXPECT_EQ(beams.ended().size(), 2u);
    // -3.2 for one token is not better than -3.1, so without early stopping neither can improve at this length.
    EXPECT_TRUE(beams.running().empty());
  }
  sampling::SamplingParams params;
  params.beam_width = 2;
  params.beam_early_stopping = 2;  // at length 10 it can
  BeamSearch beams(params, {kEnd, 1}, 10);
  beams.advance(Round{tokens({{kEnd, -3.0f}, {1, -3.1f}, {5, -3.2f}, {6, -3.3f}})});
  EXPECT_EQ(beams.running().size(), 2u);
}

TEST(BeamSearch, AnEndingTokenBelowTheFirstPlacesIsForgotten) {
  sampling::SamplingParams params;
  params.beam_width = 2;
  BeamSearch beams(params, {kEnd}, 10);
  beams.advance(Round{tokens({{5, -1.0f}, {6, -2.0f}, {kEnd, -3.0f}, {7, -4.0f}})});
  EXPECT_TRUE(beams.ended().empty());
  ASSERT_EQ(beams.running().size(), 2u);
  EXPECT_THAT(beams.running()[1].tokens, ElementsAre(6));
}

TEST(BeamSearch, DiversityGivesOtherParentsAChance) {
  for (const float diversity : {0.0f, 1.0f}) {
    sampling::SamplingParams params;
    params.beam_width = 2;
    params.beam_diversity = diversity;
    BeamSearch beams(params, {kEnd}, 10);
    beams.advance(Round{tokens({{5, -1.0f}, {6, -2.1f}, {7, -5.0f}, {8, -6.0f}})});
    beams.advance(Round{tokens({{5, -1.0f}, {6, -1.1f}}), tokens({{7, -0.5f}, {8, -3.0f}})});
    ASSERT_EQ(beams.running().size(), 2u);
    EXPECT_EQ(beams.running()[1].tokens, (diversity == 0 ? Tokens{5, 6} : Tokens{6, 7}));
    EXPECT_FLOAT_EQ(beams.running()[1].sum, diversity == 0 ? -2.1f : -2.6f) << "scores know nothing of it";
  }
}

TEST(BeamSearch, FewCandidatesGiveFewBeams) {
  sampling::SamplingParams params;
  params.beam_width = 4;
  BeamSearch beams(params, {kEnd}, 2);
  beams.advance(Round{tokens({{5, -1.0f}})});
  ASSERT_EQ(beams.running().size(), 1u);
  beams.advance(Round{tokens({{6, -1.0f}})});
  ASSERT_EQ(beams.ended().size(), 1u);
  EXPECT_THAT(beams.ended()[0].tokens, ElementsAre(5, 6));
  EXPECT_THAT(beams.ended()[0].logprobs, ElementsAre(-1.0f, -1.0f));
}

}  // namespace beam_search_test
}  // namespace optserve::batching
