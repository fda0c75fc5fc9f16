// For tests: executes step plans on a KV cache whose cells hold a digest of the whole prefix, so that a wrong block,
// position or token shows as a wrong digest. The next token depends only on the prefix, as with a deterministic model.
// After a prefix that begins with kFakeLoop the tokens often repeat themselves.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "batching/planner.h"

namespace optserve::batching {

inline constexpr TokenId kFakeVocabulary = 50;
inline constexpr TokenId kFakeNonFinite = -7;  // what fake_next() returns if the model's output is not finite

inline uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}
inline uint64_t extend(uint64_t digest, TokenId token) { return mix(digest * 31 + static_cast<uint64_t>(token) + 1); }
inline uint64_t digest_of(std::span<const TokenId> tokens) {
  uint64_t digest = 1;
  for (TokenId token : tokens) digest = extend(digest, token);
  return digest;
}
inline constexpr TokenId kFakeLoop = 3;
// The token after a prefix: sometimes the end of text (2), rarely kFakeNonFinite.
inline TokenId fake_next(std::span<const TokenId> prefix) {
  const uint64_t digest = digest_of(prefix);
  if (digest % 997 == 0) return kFakeNonFinite;
  if (prefix.front() == kFakeLoop && digest % 6 != 0) return 5 + prefix.back() % 7;
  return digest % 23 == 0 ? 2 : 3 + static_cast<TokenId>(mix(digest) % (kFakeVocabulary - 3));
}
inline float fake_logprob(uint64_t digest, TokenId token) {
  return -static_cast<float>(mix(digest + static_cast<uint64_t>(token) * 77) % 1000);
}

// The best tokens after a prefix, all of them different.
inline std::vector<sampling::TokenLogprob> fake_best(std::span<const TokenId> prefix, int32_t count) {
  std::vector<sampling::TokenLogprob> best;
  for (TokenId id = 2; id < kFakeVocabulary; ++id) best.push_back({id, fake_logprob(digest_of(prefix), id) / 100});
  std::ranges::stable_sort(best, std::ranges::greater(), &sampling::TokenLogprob::logprob);
  best.resize(static_cast<size_t>(std::clamp(count, 0, kFakeVocabulary - 2)));
  return best;
}

class FakeEngine {
 public:
  explicit FakeEngine(const PlannerOptions& options)
      : options_(options),
        slots_(static_cast<size_t>(options.max_sequences)),
        cells_(static_cast<size_t>(options.num_blocks) * static_cast<size_t>(options.block_tokens)),
        users_(static_cast<size_t>(options.num_blocks)) {}

  // The first fault found in a plan so far; empty if there is none.
  const std::string& fault() const { return fault_; }

  StepResult run(const StepPlan& plan) {
    expect(plan.step == ++step_, "steps count by one");
    expect(plan.num_tokens() > 0 && plan.num_tokens() <= options_.max_step_tokens, "rows within the budget");
    for (int32_t slot : plan.released) release(slot);
    for (const AdmittedSlot& admitted : plan.admitted) {
      Slot& slot = at(admitted.slot);
      expect(!slot.live, "a slot is admitted while in use");
      slot.live = true;
      slot.best = admitted.sampling.logprobs;
      slot.tokens = admitted.cached;
      slot.shared_blocks = admitted.cached.size() / static_cast<size_t>(options_.block_tokens);
      expect(admitted.cached.size() % static_cast<size_t>(options_.block_tokens) == 0, "whole blocks are shared");
    }
    StepResult result;
    result.step = plan.step;
    std::vector<bool> used(slots_.size());
    for (const SlotWork& work : plan.work) {
      expect(!used[static_cast<size_t>(work.slot)], "a slot works twice in a step");
      used[static_cast<size_t>(work.slot)] = true;
      execute(work, result);
    }
    return result;
  }

 private:
  struct Slot {
    bool live = false;
    int32_t best = 0;             // tokens to report beside the drawn one
    std::vector<TokenId> tokens;  // in the cache
    size_t shared_blocks = 0;     // how many of the first blocks other sequences have filled
    std::vector<int32_t> blocks;
    size_t drawn_at = 0;         // position of the first token of `drawn`
    std::vector<TokenId> drawn;  // by the latest step that drew
    size_t drafts = 0;           // how many drafts that step had
  };

  void expect(bool holds, const char* what) {
    if (!holds && fault_.empty()) fault_ = "step " + std::to_string(step_) + ": " + what;
  }
  Slot& at(int32_t slot) { return slots_.at(static_cast<size_t>(slot)); }
  uint64_t& cell(const Slot& slot, size_t position) {
    const auto block_tokens = static_cast<size_t>(options_.block_tokens);
    return cells_.at(static_cast<size_t>(slot.blocks.at(position / block_tokens)) * block_tokens +
                     position % block_tokens);
  }
  void release(int32_t number) {
    Slot& slot = at(number);
    expect(slot.live, "a slot is released while free");
    for (int32_t block : slot.blocks) --users_.at(static_cast<size_t>(block));
    slot = Slot{};
  }

  void execute(const SlotWork& work, StepResult& result) {
    Slot& slot = at(work.slot);
    expect(slot.live, "work for a free slot");
    for (int32_t block : work.new_blocks) {
      const bool may_have_users = slot.blocks.size() < slot.shared_blocks;
      expect(users_.at(static_cast<size_t>(block))++ == 0 || may_have_users, "a block is given to two slots");
      slot.blocks.push_back(block);
    }
    const auto start = static_cast<size_t>(work.start);
    // The rows of wrong drafts do not belong to the sequence.
    expect(start <= slot.tokens.size() && start + slot.drafts >= slot.tokens.size(), "positions are contiguous");
    slot.tokens.resize(std::min(start, slot.tokens.size()));
    std::vector<TokenId> tokens = work.tokens;
    if (tokens.empty()) {
      const bool drawn = start >= slot.drawn_at && start < slot.drawn_at + slot.drawn.size();
      expect(drawn, "the last drawn token is asked for, but none was drawn");
      tokens.push_back(drawn ? slot.drawn[start - slot.drawn_at] : 0);
      tokens.insert(tokens.end(), work.drafts.begin(), work.drafts.end());
    }
    slot.drafts = work.drafts.size();
    if (work.sample) {
      slot.drawn_at = start + tokens.size() - slot.drafts;
      slot.drawn.clear();
    }
    expect(tokens.size() == static_cast<size_t>(work.num_tokens), "one id a row");
    uint64_t digest = digest_of(slot.tokens);
    if (!slot.tokens.empty()) expect(cell(slot, slot.tokens.size() - 1) == digest, "the cache holds another prefix");
    for (size_t i = 0; i < slot.tokens.size(); ++i) {
      expect(cell(slot, i) == digest_of(std::span(slot.tokens).first(i + 1)), "a cache cell was overwritten");
    }
    SlotLogprobs logprobs{.slot = work.slot, .start = work.start, .logprobs = {}};
    for (size_t row = 0; row < tokens.size(); ++row) {
      slot.tokens.push_back(tokens[row]);
      digest = extend(digest, tokens[row]);
      expect(slot.blocks.size() * static_cast<size_t>(options_.block_tokens) >= slot.tokens.size(), "blocks cover");
      const size_t at_block = (slot.tokens.size() - 1) / static_cast<size_t>(options_.block_tokens);
      expect(users_.at(static_cast<size_t>(slot.blocks.at(at_block))) == 1, "a shared block is written");
      cell(slot, slot.tokens.size() - 1) = digest;
      if (work.sample && row + 1 + slot.drafts >= tokens.size()) draw(work.slot, result);
      if (work.logprob_targets.empty()) continue;
      const TokenId target = work.logprob_targets.at(row);
      logprobs.logprobs.push_back(target < 0 ? 0 : fake_logprob(digest, target));
      if (work.target_best == 0) continue;
      logprobs.best.push_back(target < 0 ? std::vector<sampling::TokenLogprob>()
                                         : fake_best(slot.tokens, work.target_best));
    }
    if (!work.logprob_targets.empty()) result.logprobs.push_back(std::move(logprobs));
    expect(slot.tokens.size() <= static_cast<size_t>(options_.max_context), "context is kept");
  }

  void draw(int32_t number, StepResult& result) {
    Slot& slot = at(number);
    const TokenId next = fake_next(slot.tokens), token = next == kFakeNonFinite ? 0 : next;
    slot.drawn.push_back(token);
    result.sampled.push_back({number, token, fake_logprob(digest_of(slot.tokens), token), next != kFakeNonFinite,
                              fake_best(slot.tokens, slot.best)});
  }

  PlannerOptions options_;
  std::vector<Slot> slots_;
  std::vector<uint64_t> cells_;  // the digest of the prefix that ends in each cell
  std::vector<int32_t> users_;   // slots of each block
  uint64_t step_ = 0;
  std::string fault_;
};

}  // namespace optserve::batching
