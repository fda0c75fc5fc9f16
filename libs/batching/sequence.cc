#include "batching/sequence.h"

#include <algorithm>
#include <utility>

namespace optserve::batching {

Sequence::Sequence(SequenceRequest r, uint64_t serial_number, BlockAllocator& allocator, int32_t max_context)
    : request(std::move(r)), serial(serial_number), age(serial_number), given(known()), blocks(allocator) {
  const int64_t wanted = int64_t{request.prompt_tokens} + request.max_new_tokens;
  length_max = std::max(given, static_cast<int32_t>(std::min<int64_t>(wanted, max_context)));
}

std::optional<sampling::FinishReason> Sequence::finish_reason(TokenId token, const PlannerOptions& options) const {
  if (ends_text(options, token) && !request.sampling.ignore_eos) return sampling::FinishReason::kEndOfText;
  if (std::ranges::find(request.rules.stop_ids, token) != request.rules.stop_ids.end()) {
    return sampling::FinishReason::kStop;
  }
  if (known() >= length_max) return sampling::FinishReason::kLength;
  return std::nullopt;
}

const BlockKey& Sequence::key_of(int32_t block, int32_t block_tokens) {
  while (static_cast<int32_t>(keys.size()) <= block) {
    const auto tokens = std::span(request.tokens).subspan(keys.size() * static_cast<size_t>(block_tokens));
    const BlockKey before = keys.empty() ? first_key(request.cache_salt) : keys.back();
    keys.push_back(extend(before, tokens.first(static_cast<size_t>(block_tokens))));
  }
  return keys[static_cast<size_t>(block)];
}

void Sequence::reset() {
  cached = 0;
  published = 0;
  slot = -1;
  sampled_in_slot = false;
  drafted = false;
  blocks.clear();
}

}  // namespace optserve::batching
