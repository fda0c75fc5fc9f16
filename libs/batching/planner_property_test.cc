// Random workloads against the fake engine: whatever the arrivals, cancellations, pool and pipeline, each sequence ends
// once with exactly the tokens and log-probabilities it would have alone.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "batching/beam_search.h"
#include "batching/draft_source.h"
#include "batching/fake_engine.h"
#include "batching/planner.h"

namespace optserve::batching {
namespace planner_property_test {

struct Expected {
  std::vector<TokenId> tokens;  // the new ones, including the end-of-text id
  std::vector<float> logprobs;  // of the new tokens
  std::vector<float> prompt_logprobs;
  std::vector<std::vector<sampling::TokenLogprob>> prompt_best;
  sampling::FinishReason finished = sampling::FinishReason::kLength;
  std::vector<std::vector<TokenId>> hypotheses;
};

Expected generate_alone(const SequenceRequest& request, const PlannerOptions& options) {
  Expected expected;
  std::vector<TokenId> tokens = request.tokens;
  for (size_t i = 1; i < tokens.size() && request.prompt_logprobs; ++i) {
    expected.prompt_logprobs.push_back(fake_logprob(digest_of(std::span(tokens).first(i)), tokens[i]));
    if (request.prompt_best > 0) {
      expected.prompt_best.push_back(fake_best(std::span(tokens).first(i), request.prompt_best));
    }
  }
  const auto length_max =
      static_cast<size_t>(std::min(request.prompt_tokens + request.max_new_tokens, options.max_context));
  while (tokens.size() < length_max) {
    const uint64_t digest = digest_of(tokens);
    const TokenId next = fake_next(tokens);
    if (next == kFakeNonFinite) {
      expected.finished = sampling::FinishReason::kError;
      break;
    }
    tokens.push_back(next);
    expected.tokens.push_back(next);
    expected.logprobs.push_back(fake_logprob(digest, next));
    if (next == options.eos && !request.sampling.ignore_eos) {
      expected.finished = sampling::FinishReason::kEndOfText;
      break;
    }
  }
  return expected;
}

// The same for a beam search.
Expected search_alone(const SequenceRequest& request, const PlannerOptions& options) {
  std::vector<TokenId> ends;
  if (!request.sampling.ignore_eos) ends.push_back(options.eos);
  const int32_t wanted = BeamSearch::candidates_wanted(request.sampling.beam_width, ends.size());
  const int32_t length_max = std::min(request.prompt_tokens + request.max_new_tokens, options.max_context);
  BeamSearch search(request.sampling, ends, length_max - static_cast<int32_t>(request.tokens.size()));
  Expected expected;
  while (!search.running().empty()) {
    std::vector<std::vector<sampling::TokenLogprob>> candidates;
    for (const BeamSearch::Beam& beam : search.running()) {
      std::vector<TokenId> tokens = request.tokens;
      tokens.insert(tokens.end(), beam.tokens.begin(), beam.tokens.end());
      if (fake_next(tokens) == kFakeNonFinite) {
        expected.finished = sampling::FinishReason::kError;
        return expected;
      }
      candidates.push_back(fake_best(tokens, wanted));
    }
    search.advance(candidates);
  }
  const BeamSearch::Beam& best = search.ended().front();
  expected.tokens = best.tokens;
  expected.logprobs = best.logprobs;
  if (best.ended_by >= 0) expected.finished = sampling::FinishReason::kEndOfText;
  for (const BeamSearch::Beam& beam : search.ended()) {
    auto& hypothesis =
        expected.hypotheses.emplace_back(request.tokens.begin() + request.prompt_tokens, request.tokens.end());
    hypothesis.insert(hypothesis.end(), beam.tokens.begin(), beam.tokens.end());
  }
  return expected;
}

// Guesses the next tokens, often wrongly.
class RandomDrafts final : public DraftSource {
 public:
  explicit RandomDrafts(uint64_t seed) : random_(seed) {}

  bool pays() override { return random_() % 8 > 0; }
  std::vector<std::vector<TokenId>> draft(std::span<const DraftQuery> queries) override {
    std::vector<std::vector<TokenId>> drafts;
    for (const DraftQuery& query : queries) {
      EXPECT_GT(query.most, 0);
      std::vector<TokenId> tokens = query.request->tokens;
      std::vector<TokenId>& draft = drafts.emplace_back();
      for (uint64_t i = random_() % static_cast<uint64_t>(query.most + 3); i > 0;
           --i) {  // sometimes more than are wanted
        const TokenId next = fake_next(tokens);
        const bool is_right = random_() % 4 > 0 && next != kFakeNonFinite;
        draft.push_back(is_right ? next : static_cast<TokenId>(random_() % kFakeVocabulary));
        tokens.push_back(draft.back());
      }
      ++asked;
    }
    return drafts;
  }
  void note(int32_t accepted) override { noted += static_cast<uint64_t>(accepted); }

  uint64_t asked = 0, noted = 0;

 private:
  std::mt19937_64 random_;
};

class Workload {
 public:
  explicit Workload(uint64_t seed)
      : random_(seed), drafts_(seed), options_(random_options()), planner_(options_), engine_(options_) {}

  void run() {
    const int total = pick(1, 60), turns_between = pick(0, 1) == 0 ? 3 : 60;
    int added = 0;
    for (int turn = 0; added < total || planner_.has_work() || planner_.in_flight() > 0; ++turn) {
      ASSERT_LT(turn, 200'000) << "the workload does not end";
      while (added < total && pick(0, turns_between) == 0) add(static_cast<SequenceId>(added++));
      if (pick(0, 40) == 0 && added > 0) cancel(static_cast<SequenceId>(pick(0, added - 1)));
      if (pick(0, 1) == 0) {
        if (const auto plan = plan_step(planner_, source_)) execute(*plan);
      } else if (!results_.empty()) {
        apply();
      }
      ASSERT_EQ(engine_.fault(), "");
      ASSERT_EQ(planner_.check_invariants(), "");
      if (testing::Test::HasFatalFailure()) return;
    }
    EXPECT_TRUE(expected_.empty()) << expected_.size() << " sequences never ended";
    EXPECT_EQ(planner_.stats().free_blocks, options_.num_blocks);
    EXPECT_EQ(planner_.stats().running + planner_.stats().waiting, 0);
  }
  uint64_t preemptions() const { return planner_.stats().preemptions; }
  uint64_t shared_tokens() const { return planner_.stats().shared_tokens; }
  uint64_t drafted_tokens() const { return planner_.stats().drafted_tokens; }
  uint64_t accepted_tokens() const { return planner_.stats().accepted_tokens; }
  int searches() const { return searches_; }
  uint64_t asked_drafts() const { return drafts_.asked; }
  uint64_t noted_drafts() const { return drafts_.noted; }

 private:
  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  PlannerOptions random_options() {
    PlannerOptions options;
    options.block_tokens = pick(1, 8);
    options.max_context = pick(8, 80);
    options.max_sequences = pick(1, 12);
    options.max_step_tokens = options.max_sequences + pick(0, 40);
    const int least = (options.max_context + options.block_tokens - 1) / options.block_tokens;
    options.num_blocks = least + pick(0, 3 * least);
    options.pipeline_depth = pick(1, 3);
    options.prefix_cache = pick(0, 2) > 0;
    options.draft_tokens = std::max(0, pick(-3, 9));
    if (pick(0, 2) == 0) source_ = &drafts_;
    return options;
  }

  void add(SequenceId id) {
    SequenceRequest request;
    request.id = id;
    request.prompt_tokens = pick(1, options_.max_context);
    request.max_new_tokens = pick(0, 40);
    request.prompt_logprobs = pick(0, 2) == 0;
    if (request.prompt_logprobs) request.prompt_best = pick(0, 4);
    request.sampling.ignore_eos = pick(0, 3) == 0;
    // There are a few texts, some of which begin alike, and two salts. Some texts repeat themselves.
    std::mt19937_64 text(static_cast<uint64_t>(pick(0, 2)));
    const bool loops = pick(0, 1) == 0;
    const int same = pick(0, request.prompt_tokens);
    for (int i = 0; i < request.prompt_tokens; ++i) {
      const int shared = std::uniform_int_distribution<int>(3, kFakeVocabulary - 1)(text);
      request.tokens.push_back(i < same ? shared : pick(3, kFakeVocabulary - 1));
    }
    if (loops) request.tokens.front() = kFakeLoop;
    request.cache_salt = pick(0, 3) == 0 ? "other" : "";
    const int room = std::min(request.max_new_tokens, options_.max_context - request.prompt_tokens);
    if (pick(0, 4) == 0) {
      for (int i = pick(0, room); i > 0; --i) request.tokens.push_back(pick(3, kFakeVocabulary - 1));
    }
    const bool has_room = request.max_new_tokens > 0 &&
                          static_cast<int>(request.tokens.size()) <
                              std::min(request.prompt_tokens + request.max_new_tokens, options_.max_context);
    if (has_room && !request.prompt_logprobs && pick(0, 4) == 0) {
      request.sampling.beam_width = pick(2, 6);
      request.sampling.beam_early_stopping = pick(0, 2);
    }
    const bool searches = request.sampling.is_beam_search();
    expected_[id] = searches ? search_alone(request, options_) : generate_alone(request, options_);
    searches_ += searches;
    const Status status = planner_.add(std::move(request));
    ASSERT_TRUE(status.ok()) << status.refusal().message;
  }

  void cancel(SequenceId id) {
    const bool live = expected_.erase(id) > 0;
    EXPECT_EQ(planner_.cancel(id), live);
    seen_.erase(id);
  }

  void execute(const StepPlan& plan) {
    const auto decoded = decode_step_plan(encode(plan));
    ASSERT_TRUE(decoded.ok());
    results_.push_back(engine_.run(decoded.value()));
    EXPECT_LE(planner_.in_flight(), options_.pipeline_depth);
  }

  void apply() {
    for (const SequenceEvent& event : apply_step(planner_, results_.front(), source_)) {
      ASSERT_TRUE(expected_.contains(event.id)) << "event of sequence " << event.id << ", which has ended";
      Expected& seen = seen_[event.id];
      EXPECT_TRUE(event.prompt_logprobs.empty() ||
                  static_cast<size_t>(event.logprobs_start) == seen.prompt_logprobs.size() + 1);
      seen.prompt_logprobs.insert(seen.prompt_logprobs.end(), event.prompt_logprobs.begin(),
                                  event.prompt_logprobs.end());
      seen.prompt_best.insert(seen.prompt_best.end(), event.prompt_best.begin(), event.prompt_best.end());
      if (event.token) {
        seen.tokens.push_back(*event.token);
        seen.logprobs.push_back(event.logprob);
      }
      if (event.finished) {
        const Expected& expected = expected_[event.id];
        EXPECT_EQ(*event.finished, expected.finished);
        EXPECT_EQ(seen.tokens, expected.tokens);
        EXPECT_EQ(seen.logprobs, expected.logprobs);
        EXPECT_EQ(seen.prompt_logprobs, expected.prompt_logprobs);
        EXPECT_EQ(seen.prompt_best, expected.prompt_best);
        std::vector<std::vector<TokenId>> hypotheses;
        for (const Hypothesis& hypothesis : event.hypotheses) hypotheses.push_back(hypothesis.tokens);
        EXPECT_EQ(hypotheses, expected.hypotheses);
        expected_.erase(event.id);
      }
    }
    results_.pop_front();
  }

  std::mt19937_64 random_;
  RandomDrafts drafts_;
  DraftSource* source_ = nullptr;
  int searches_ = 0;
  PlannerOptions options_;
  Planner planner_;
  FakeEngine engine_;
  std::deque<StepResult> results_;
  std::map<SequenceId, Expected> expected_;  // of live sequences
  std::map<SequenceId, Expected> seen_;
};

TEST(PlannerProperty, EachSequenceEndsOnceAsIfAlone) {
  int searches = 0;
  uint64_t preemptions = 0, shared_tokens = 0, drafted_tokens = 0, accepted_tokens = 0, asked = 0, noted = 0;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Workload workload(seed);
    workload.run();
    preemptions += workload.preemptions();
    shared_tokens += workload.shared_tokens();
    drafted_tokens += workload.drafted_tokens();
    accepted_tokens += workload.accepted_tokens();
    searches += workload.searches();
    asked += workload.asked_drafts();
    noted += workload.noted_drafts();
    if (HasFailure()) return;
  }
  EXPECT_GT(preemptions, 100u) << "the workloads no longer exercise preemption";
  EXPECT_GT(searches, 500) << "the workloads no longer search with beams";
  EXPECT_GT(shared_tokens, 1'000u) << "the workloads no longer share prefixes";
  EXPECT_GT(asked, 500u) << "the workloads no longer ask for guesses";
  EXPECT_GT(noted, 500u) << "the source no longer hears what its guesses were worth";
  EXPECT_GT(accepted_tokens, 500u) << "the workloads no longer draft what comes";
  EXPECT_GT(drafted_tokens - accepted_tokens, 1'000u) << "the workloads no longer draft what does not come";
}

}  // namespace planner_property_test
}  // namespace optserve::batching
