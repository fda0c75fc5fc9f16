// What one engine step does, as rank 0 plans it and every rank executes it. Ranks keep the state of their slots (block
// table, token history, last sampled token), so a plan carries only changes: during steady decoding it takes a few
// bytes per sequence.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "sampling/sampling_params.h"
#include "sampling/token_logprob.h"

namespace optserve::batching {

// A sequence enters a slot, whose block table and history are emptied first.
struct AdmittedSlot {
  int32_t slot = 0;
  int32_t prompt_tokens = 0;  // how many of its first tokens are the prompt, which has penalties of its own
  sampling::SamplingParams sampling;
  std::vector<int32_t> rules{};   // packed TokenRules; empty: none
  std::vector<TokenId> cached{};  // the sequence's first tokens, whose keys and values are in its first blocks already
};

// Tokens of one slot that this step processes: positions [start, start + num_tokens).
struct SlotWork {
  int32_t slot = 0;
  int32_t start = 0;  // tokens of the sequence already in the KV cache
  int32_t num_tokens = 1;
  std::vector<TokenId> tokens;      // ids of those positions; empty: the token this slot sampled last, then the drafts
  std::vector<int32_t> new_blocks;  // KV blocks appended to the slot's table before the step
  bool sample = false;              // the logits of the last row give the next token
  // Empty, or one id for each row, whose log-probability given the tokens before it is reported; -1 for rows without
  // one.
  std::vector<TokenId> logprob_targets;
  // Guesses of the tokens after the one drawn last, at positions start + 1, ...; num_tokens is one more than the number
  // of guesses. Each of these rows draws a token. The next work of the slot starts after the last token that was drawn
  // as guessed.
  std::vector<TokenId> drafts{};
  int32_t target_best = 0;  // how many of the best tokens are reported beside each of logprob_targets

  // The number of tokens that the step draws for the slot.
  int32_t num_draws() const { return sample ? 1 + static_cast<int32_t>(drafts.size()) : 0; }
};

struct StepPlan {
  uint64_t step = 0;              // counts from 1 in each start of a group
  std::vector<int32_t> released;  // slots freed before anything else of this step
  std::vector<AdmittedSlot> admitted;
  std::vector<SlotWork> work;

  int64_t num_tokens() const;  // rows of the step
};

struct SampledToken {
  int32_t slot = 0;
  TokenId token = 0;
  float logprob = 0;   // of the token under the model's own distribution (before temperature, penalties and truncation)
  bool finite = true;  // false: the logits held NaN or Inf, `token` is meaningless
  // The best tokens, best first: as many as sampling.logprobs asks for, or fewer if there are not so many.
  std::vector<sampling::TokenLogprob> best{};
};

struct SlotLogprobs {
  int32_t slot = 0;
  int32_t start = 0;            // position of the first row
  std::vector<float> logprobs;  // one per target; 0 where the target was -1
  // Empty, or for each target the best tokens of its row, as many as SlotWork::target_best asks for; the target itself
  // has the same log-probability here and there.
  std::vector<std::vector<sampling::TokenLogprob>> best{};
};

struct StepResult {
  uint64_t step = 0;
  std::vector<SampledToken> sampled;   // num_draws() of each work item, in order of items and positions
  std::vector<SlotLogprobs> logprobs;  // in the order of the work items with targets
};

// Byte form for the relay from rank 0 to the other ranks of the same build; little-endian, no versioning.
std::vector<uint8_t> encode(const StepPlan& plan);
Result<StepPlan> decode_step_plan(std::span<const uint8_t> bytes);

}  // namespace optserve::batching
