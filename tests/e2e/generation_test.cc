// Every option of a generation through real processes: random combinations of them, and scoring of held-out text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <mutex>
#include <numeric>
#include <random>
#include <set>

#include "base/clock.h"
#include "demo_stack.h"
#include "support/demo_model.h"
#include "tokenizer/bpe.h"
#include "tokenizer/encoder.h"

namespace optserve::test_support {
namespace generation_test {

using protocol::JobSpec;
using protocol::JobState;

constexpr TokenId kVocab = 4'096;

const tokenizer::Bpe& demo_bpe() {
  static const auto bpe =
      tokenizer::Bpe::parse(read_file(demo_file("gpt2-vocab.json")), read_file(demo_file("gpt2-merges.txt")));
  return bpe.value();
}

// Jobs with random combinations of options.
class RandomJobs {
 public:
  explicit RandomJobs(unsigned seed) : random_(seed) {}

  JobSpec next() {
    const auto& cases = demo_goldens().cases;
    JobSpec job;
    job.model = "demo";
    const DemoCase& golden = cases[static_cast<size_t>(pick(0, static_cast<int64_t>(cases.size()) - 1))];
    if (chance(50)) {
      job.prompt = golden.prompt;
    } else {
      job.prompt_ids = golden.prompt_ids;
    }
    job.max_new_tokens = static_cast<int32_t>(pick(1, 20));
    add_sampling(job.sampling, job.max_new_tokens);
    add_rules(job);
    if (chance(10)) {
      search_beams(job.sampling);
    } else {
      job.prompt_logprobs = chance(10);
    }
    job.ttl_ms = 600'000;
    return job;
  }
  int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }
  bool chance(int percent) { return pick(1, 100) <= percent; }

 private:
  float real(double low, double high) {
    return static_cast<float>(std::uniform_real_distribution<double>(low, high)(random_));
  }
  TokenId id() { return static_cast<TokenId>(pick(4, kVocab - 1)); }
  std::vector<TokenId> ids(int64_t n) {
    std::vector<TokenId> out;
    for (; n > 0; --n) out.push_back(id());
    return out;
  }
  void add_sampling(sampling::SamplingParams& p, int32_t max_new_tokens) {
    p.seed = random_();
    p.temperature = chance(20) ? 0.0f : real(0.3, 1.8);
    if (chance(30)) p.top_k = static_cast<int32_t>(pick(1, 60));
    if (chance(30)) p.top_p = real(0.1, 1);
    if (chance(20)) p.min_p = real(0, 0.2);
    if (chance(20)) p.typical_p = real(0.2, 1);
    if (chance(20)) p.top_p_decay = real(0.7, 1), p.top_p_min = real(0, 0.3);
    if (chance(20)) p.repetition_penalty = real(0.8, 2);
    if (chance(20)) p.presence_penalty = real(-1, 2);
    if (chance(20)) p.frequency_penalty = real(-1, 2);
    if (chance(10)) p.prompt_presence_penalty = real(-1, 2);
    if (chance(20)) p.min_new_tokens = static_cast<int32_t>(pick(0, max_new_tokens));
    if (chance(20)) p.ignore_eos = true;
    if (chance(40)) p.logprobs = static_cast<int32_t>(pick(0, 20));
    p.profile = static_cast<sampling::SamplingProfile>(pick(0, 2));
  }
  // With the options that are allowed in a beam search.
  void search_beams(sampling::SamplingParams& p) {
    sampling::SamplingParams chosen;
    chosen.beam_width = static_cast<int32_t>(pick(2, 3));
    chosen.beam_length_penalty = real(-2, 2);
    chosen.beam_early_stopping = static_cast<int32_t>(pick(0, 2));
    if (chance(30)) chosen.beam_diversity = real(0, 2);
    chosen.repetition_penalty = p.repetition_penalty;
    chosen.presence_penalty = p.presence_penalty;
    chosen.frequency_penalty = p.frequency_penalty;
    chosen.min_new_tokens = p.min_new_tokens;
    chosen.ignore_eos = p.ignore_eos;
    chosen.logprobs = std::min(p.logprobs, 0);
    p = chosen;
  }
  void add_rules(JobSpec& job) {
    sampling::TokenRules& rules = job.rules;
    if (chance(10)) rules.allowed_ids = ids(pick(5, 200));
    for (int64_t n = chance(20) ? pick(1, 8) : 0; n > 0; --n) rules.logit_bias.push_back({id(), real(-100, 20)});
    for (int64_t n = chance(20) ? pick(1, 5) : 0; n > 0; --n) rules.bad_words.push_back(ids(pick(1, 3)));
    if (chance(15)) rules.logit_bias.push_back({2, real(5, 15)});  // texts that end by themselves
    if (chance(20)) job.bad_words = {"the", " was", "little girl"};
    if (chance(20)) rules.stop_ids = ids(pick(1, 16));
    if (chance(30)) {
      static const char* const kStops[] = {".", "e", " th", ", ", "and", "he", "\n", "!"};
      for (int64_t n = pick(1, 3); n > 0; --n) job.stop.emplace_back(kStops[pick(0, 7)]);
    }
    job.include_stop = chance(40);
  }
  std::mt19937_64 random_;
};

// What a job's options promise about every result.
void check_promises(const JobSpec& job, const protocol::JobResult& result) {
  using sampling::FinishReason;
  const auto ends_with_id = [&](const std::vector<TokenId>& ids) {
    return !result.ids.empty() && std::ranges::find(ids, result.ids.back()) != ids.end();
  };
  EXPECT_LE(result.ids.size(), static_cast<size_t>(job.max_new_tokens));
  for (size_t i = 0; i < result.ids.size(); ++i) {
    const TokenId id = result.ids[i];
    EXPECT_NE(id, 1) << "padding was drawn";
    const auto& allowed = job.rules.allowed_ids;
    EXPECT_TRUE(allowed.empty() || std::ranges::find(allowed, id) != allowed.end()) << id << " is not allowed";
    const bool is_end =
        (id == 2 && !job.sampling.ignore_eos) || std::ranges::find(job.rules.stop_ids, id) != job.rules.stop_ids.end();
    if (is_end) {
      EXPECT_EQ(i + 1, result.ids.size()) << "text goes on after its end";
      EXPECT_GE(i, static_cast<size_t>(job.sampling.min_new_tokens));
    }
    for (const auto& word : job.rules.bad_words) {
      const bool is_there = word.size() <= i + 1 &&
                            std::equal(word.rbegin(), word.rend(), result.ids.rend() - static_cast<ptrdiff_t>(i + 1));
      EXPECT_FALSE(is_there) << "a bad word";
    }
  }
  if (result.finish_reason == sampling::FinishReason::kLength) {
    EXPECT_EQ(result.ids.size(), static_cast<size_t>(job.max_new_tokens));
  }
  for (const std::string& stop : job.stop) {
    const size_t at = result.text.find(stop);
    if (at == std::string::npos) continue;
    EXPECT_TRUE(job.include_stop && result.finish_reason == sampling::FinishReason::kStop) << "'" << stop << "' leaked";
  }
  if (result.finish_reason == sampling::FinishReason::kStop && job.stop.empty()) {
    EXPECT_TRUE(ends_with_id(job.rules.stop_ids));
  }
  if (job.sampling.logprobs < 0) {
    EXPECT_TRUE(result.logprobs.empty());
    return;
  }
  ASSERT_EQ(result.logprobs.size(), result.ids.size());
  ASSERT_EQ(result.best.size(), result.ids.size());
  for (size_t i = 0; i < result.best.size(); ++i) {
    ASSERT_EQ(result.best[i].size(), static_cast<size_t>(job.sampling.logprobs));
    if (!job.sampling.is_beam_search()) {  // which counts biases and penalties in
      EXPECT_LE(result.logprobs[i], 1e-6f);
    }
    for (size_t k = 0; k < result.best[i].size(); ++k) {
      const sampling::TokenLogprob& best = result.best[i][k];
      if (k > 0) {
        EXPECT_LE(best.logprob, result.best[i][k - 1].logprob);
      }
      if (best.id == result.ids[i]) {
        EXPECT_NEAR(best.logprob, result.logprobs[i], 1e-5);
      }
    }
  }
}

void check_hypotheses(const JobSpec& job, const protocol::JobResult& result) {
  if (!job.sampling.is_beam_search()) {
    EXPECT_TRUE(result.hypotheses.empty());
    return;
  }
  ASSERT_FALSE(result.hypotheses.empty());
  EXPECT_LE(result.hypotheses.size(), static_cast<size_t>(job.sampling.beam_width));
  EXPECT_EQ(result.hypotheses.front().ids, result.ids);
  EXPECT_EQ(result.hypotheses.front().text, result.text);
  for (size_t i = 1; i < result.hypotheses.size(); ++i) {
    EXPECT_LE(result.hypotheses[i].score, result.hypotheses[i - 1].score);
    EXPECT_NE(result.hypotheses[i].ids, result.hypotheses[i - 1].ids);
  }
}

struct Outcome {
  JobSpec job;
  std::string streamed;
  protocol::JobResult result;
};

// Runs all jobs at once, with streams.
std::vector<Outcome> run_all(Client& client, const std::vector<JobSpec>& jobs) {
  std::mutex mutex;
  std::map<JobId, std::string> streamed;
  JobStream stream;
  stream.on_text = [&](std::string_view piece, const protocol::JobEvent& event) {
    const std::lock_guard lock(mutex);
    streamed[event.job] += piece;
  };
  std::vector<Outcome> outcomes;
  constexpr size_t kAtOnce = 200;
  for (size_t begin = 0; begin < jobs.size(); begin += kAtOnce) {
    const size_t end = std::min(jobs.size(), begin + kAtOnce);
    const auto accepted = client.submit(
        {jobs.begin() + static_cast<ptrdiff_t>(begin), jobs.begin() + static_cast<ptrdiff_t>(end)}, stream);
    if (!accepted.ok()) throw Error(accepted.refusal().message);
    for (size_t i = begin; i < end; ++i) {
      const auto& outcome = accepted.value()[i - begin];
      if (!outcome.job) throw Error("refused: " + outcome.message);
      const auto result = client.wait(*outcome.job, std::chrono::seconds(240));
      if (!result.ok()) throw Error(result.refusal().message);
      outcomes.push_back({jobs[i], "", result.value()});
    }
  }
  // The last pieces of a stream come before its end, but perhaps after the answer to wait().
  const Instant deadline = SystemClock().now() + seconds(20);
  for (Outcome& outcome : outcomes) {
    for (;;) {
      const std::lock_guard lock(mutex);
      outcome.streamed = streamed[outcome.result.job];
      if (outcome.streamed == outcome.result.text || SystemClock().now() > deadline) break;
    }
  }
  return outcomes;
}

class Generating : public DemoStackTest {
 protected:
};

TEST_F(Generating, AnyMixtureOfControlsKeepsItsPromisesAndStreamsItsText) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  RandomJobs random(seed);
  std::vector<JobSpec> jobs;
  for (int i = 0; i < (kSanitized ? 200 : 2'000); ++i) jobs.push_back(random.next());
  const auto client = stack_->client();
  std::map<sampling::FinishReason, int> reasons;
  const auto outcomes = run_all(*client, jobs);
  for (const Outcome& outcome : outcomes) {
    SCOPED_TRACE("job " + std::to_string(&outcome - outcomes.data()) + " of seed " + std::to_string(seed));
    ASSERT_EQ(outcome.result.state, JobState::kSucceeded) << outcome.result.message;
    EXPECT_EQ(outcome.streamed, outcome.result.text);
    check_promises(outcome.job, outcome.result);
    check_hypotheses(outcome.job, outcome.result);
    ++reasons[outcome.result.finish_reason];
  }
  EXPECT_EQ(reasons.size(), 3u) << "end of text, length and stop all come up";
  // Alone, and among others, the same ids for the same seed.
  for (size_t i = 0; i < outcomes.size(); i += outcomes.size() / 20) {
    const auto again = client->generate(outcomes[i].job);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again.value().ids, outcomes[i].result.ids) << "job " << i << " of seed " << seed;
  }
}

TEST_F(Generating, HeldOutTextHasItsGoldenPerplexityThroughTheServer) {
  if (kSanitized) GTEST_SKIP() << "arithmetic of 40,000 tokens";
  constexpr std::ptrdiff_t kWindow = 511;  // scored tokens of a window, which begins with </s>
  std::vector<TokenId> ids;
  ASSERT_TRUE(tokenizer::Encoder(demo_bpe()).encode(read_file(demo_file("heldout.txt")), ids).ok());
  std::vector<JobSpec> jobs;
  for (auto begin = ids.begin(); ids.end() - begin >= kWindow; begin += kWindow) {
    JobSpec& job = jobs.emplace_back();
    job.model = "demo";
    job.prompt_ids.push_back(2);
    job.prompt_ids.insert(job.prompt_ids.end(), begin, begin + kWindow);
    job.prompt_logprobs = true;
    job.max_new_tokens = 0;
  }
  double sum = 0;
  int64_t scored = 0;
  const auto client = stack_->client();
  for (const Outcome& outcome : run_all(*client, jobs)) {
    ASSERT_EQ(outcome.result.state, JobState::kSucceeded) << outcome.result.message;
    EXPECT_TRUE(outcome.result.ids.empty());
    const auto& logprobs = outcome.result.prompt_logprobs;
    sum += std::accumulate(logprobs.begin(), logprobs.end(), 0.0);
    scored += static_cast<int64_t>(logprobs.size());
  }
  EXPECT_EQ(scored, demo_goldens().heldout.scored);
  const double golden = demo_goldens().heldout.perplexity;
  EXPECT_NEAR(std::exp(-sum / static_cast<double>(scored)), golden, golden * 1e-3);
}

}  // namespace generation_test
}  // namespace optserve::test_support
