// One generation inside the planner: its known tokens, what is planned for it, and what it holds.
#pragma once

#include <cstdint>

#include "batching/block_allocator.h"
#include "batching/planner.h"
#include "batching/speculation.h"

namespace optserve::batching {

enum class SequenceState : uint8_t { kWaiting, kRunning, kDraining };

struct Sequence {
  Sequence(SequenceRequest r, uint64_t serial_number, BlockAllocator& allocator, int32_t max_context);

  // known() counts the tokens whose value is known, length() those that exist once every planned step is done.
  int32_t known() const { return static_cast<int32_t>(request.tokens.size()); }
  int32_t length() const { return known() + pending; }
  // True if nothing is left to plan: it has its full length, or it has nothing to draw and is completely in the cache.
  bool fully_planned() const { return length() == length_max && (length() > given || cached == length()); }
  // Why `token`, already appended as the newest one, ends the sequence; nullopt if it does not.
  std::optional<sampling::FinishReason> finish_reason(TokenId token, const PlannerOptions& options) const;
  // The key of block number `block` of this sequence. All tokens of the block must be known.
  const BlockKey& key_of(int32_t block, int32_t block_tokens);
  // Makes it a waiting sequence again, which holds nothing. All of its tokens must then be computed again.
  void reset();

  SequenceRequest request;    // `tokens` grows with each applied result
  uint64_t serial;            // order of creation, never reused
  uint64_t age;               // order of arrival: a beam's is that of its search
  int32_t beam = -1;          // which beam of the search request.id it extends by one token; -1: none
  int32_t given;              // tokens that the caller gave
  int32_t length_max;         // tokens at which it ends with kLength
  int32_t cached = 0;         // tokens in the KV cache once every planned step is done
  int32_t pending = 0;        // tokens drawn by planned steps whose results are not applied
  int32_t logprobs_next = 1;  // first position whose log-probability no planned step reports
  SequenceState state = SequenceState::kWaiting;
  int32_t slot = -1;             // -1: waiting, or fully planned
  bool sampled_in_slot = false;  // the engine holds the newest token as the last one drawn in this slot
  BlockTable blocks;
  bool drafted = false;  // a planned step processes drafts for it; how many are right is not known yet
  Speculation speculation;
  int32_t published = 0;       // blocks, from the first on, that other sequences can share
  std::vector<BlockKey> keys;  // of its full blocks, as far as they were needed
};

}  // namespace optserve::batching
