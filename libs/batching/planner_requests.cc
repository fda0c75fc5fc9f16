// Which requests the planner accepts, and what it reports about those that cannot go on.
#include <algorithm>
#include <string>
#include <vector>

#include "base/limits.h"
#include "batching/planner_impl.h"
#include "sampling/drawable.h"

namespace optserve::batching {

namespace {

int32_t blocks_of(int32_t tokens, int32_t block_tokens) { return (tokens + block_tokens - 1) / block_tokens; }

}  // namespace

Status Planner::Impl::admissible(const SequenceRequest& request) const {
  const auto length = static_cast<int64_t>(request.tokens.size());
  if (length == 0) return refuse(ErrorCode::kBadRequest, "the sequence has no tokens; expected at least 1");
  if (request.prompt_tokens < 1 || request.prompt_tokens > length || request.max_new_tokens < 0) {
    return refuse(ErrorCode::kBadRequest, "the sequence has " + std::to_string(length) + " tokens, and says that " +
                                              std::to_string(request.prompt_tokens) + " of them are the prompt and " +
                                              std::to_string(request.max_new_tokens) + " more are to be generated");
  }
  if (length > options.max_context) {
    return refuse(ErrorCode::kPromptTooLong, "the sequence has " + std::to_string(length) +
                                                 " tokens, but the context of the model holds only " +
                                                 std::to_string(options.max_context));
  }
  const int64_t wanted = int64_t{request.prompt_tokens} + request.max_new_tokens;
  const auto longest = static_cast<int32_t>(std::max(length, std::min<int64_t>(wanted, options.max_context)));
  const int32_t blocks = blocks_of(longest, options.block_tokens);
  if (blocks > options.num_blocks) {
    return refuse(ErrorCode::kPromptTooLong, "the sequence may grow to " + std::to_string(longest) +
                                                 " tokens, which need " + std::to_string(blocks) +
                                                 " KV blocks, but the KV cache has only " +
                                                 std::to_string(options.num_blocks));
  }
  if (by_id.contains(request.id) || beams.contains(request.id)) {
    return refuse(ErrorCode::kBadRequest,
                  "a sequence with the id " + std::to_string(request.id) + " is running already");
  }
  const auto generated = static_cast<int32_t>(length) - request.prompt_tokens;
  if (generated < request.max_new_tokens) {
    if (Status status = drawable(request, generated); !status.ok()) return status;
  }
  return request.sampling.is_beam_search() ? admissible_beams(request) : ok_status();
}

Status Planner::Impl::drawable(const SequenceRequest& request, int32_t generated) const {
  if (options.vocab == 0) return ok_status();
  return check_drawable(request.sampling, request.rules, request.tokens, generated,
                        {options.vocab, options.eos, options.pad});
}

// Called when no token could be drawn: the model is broken, or the request forbids every token at this position.
SequenceEvent Planner::Impl::failed(const SequenceRequest& request, const SequenceRequest& of_caller) const {
  SequenceEvent event;
  event.id = of_caller.id;
  event.position = static_cast<int32_t>(request.tokens.size());
  event.finished = sampling::FinishReason::kError;
  const auto generated = static_cast<int32_t>(request.tokens.size()) - request.prompt_tokens;
  if (Status status = drawable(request, generated); !status.ok()) event.refused = status.refusal();
  return event;
}

// The sampler treats the model's further end ids as stop ids, which it hides until min_new_tokens are drawn. Only the
// reported reason for the end differs.
Status Planner::Impl::add_more_ends(SequenceRequest& request) const {
  if (request.sampling.ignore_eos || options.more_eos.empty()) return ok_status();
  std::vector<TokenId>& stop_ids = request.rules.stop_ids;
  for (const TokenId id : options.more_eos) {
    if (std::ranges::find(stop_ids, id) == stop_ids.end()) stop_ids.push_back(id);
  }
  const size_t words = pack(request.rules).size();
  if (words <= limits::kTokenRulesWordsMax) return ok_status();
  return refuse(ErrorCode::kBadRequest, "the id lists, biases and bad words, together with the " +
                                            std::to_string(options.more_eos.size() + 1) +
                                            " ids with which this model ends a text, take " + std::to_string(words) +
                                            " words; expected at most " + std::to_string(limits::kTokenRulesWordsMax));
}

}  // namespace optserve::batching
