// The steps that change single logits: biases, penalties and masks.
#include <algorithm>
#include <cfloat>
#include <limits>

#include "sampling/logit_steps.h"

namespace optserve::sampling::logit_steps {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

bool within(TokenId id, size_t vocab) { return id >= 0 && static_cast<size_t>(id) < vocab; }

void hide(std::span<float> logits, TokenId id) {
  if (within(id, logits.size())) logits[static_cast<size_t>(id)] = kMinusInfinity;
}

// Hides all ids but those of the entries with kRuleAllowed.
void hide_others(std::span<float> logits, const RuleView& rules) {
  TokenId next = 0;  // entries are in order of their ids
  const auto hide_to = [&](TokenId end) {
    for (; next < end && within(next, logits.size()); ++next) hide(logits, next);
  };
  for (int32_t i = 0; i < rules.num_entries(); ++i) {
    const RuleView::Entry entry = rules.entry(i);
    if ((entry.bits & kRuleAllowed) == 0) continue;
    hide_to(entry.id);
    next = entry.id + 1;
  }
  hide_to(static_cast<TokenId>(logits.size()));
}

void mask_rules(std::span<float> logits, const SampleRow& row) {
  const RuleView rules(row.rules);
  if (rules.only_allowed()) hide_others(logits, rules);
  for (int32_t i = 0; i < rules.num_entries(); ++i) {
    const RuleView::Entry entry = rules.entry(i);
    const bool hidden = (entry.bits & kRuleBanned) != 0 || (!row.allow_end && (entry.bits & kRuleStop) != 0);
    if (hidden) hide(logits, entry.id);
  }
  for (int32_t i = 0; i < rules.num_bad_words(); ++i) {
    const auto word = rules.bad_word(i);
    const auto begun = word.first(word.size() - 1);
    if (begun.size() <= row.history.size() && std::ranges::equal(begun, row.history.last(begun.size()))) {
      hide(logits, word.back());
    }
  }
}

}  // namespace

void bias(std::span<float> logits, const RuleView& rules) {
  for (int32_t i = 0; i < rules.num_entries(); ++i) {
    const RuleView::Entry entry = rules.entry(i);
    if (within(entry.id, logits.size())) logits[static_cast<size_t>(entry.id)] += entry.bias;
  }
}

void repetition_penalty(std::span<float> logits, std::span<const TokenId> history, float penalty,
                        SamplerScratch& scratch) {
  for (const TokenId id : history) {
    if (!within(id, logits.size()) || scratch.occurrences[static_cast<size_t>(id)]++ != 0) continue;
    float& logit = logits[static_cast<size_t>(id)];
    logit = std::clamp(logit > 0 ? logit / penalty : logit * penalty, -FLT_MAX, FLT_MAX);
  }
  for (const TokenId id : history) {
    if (within(id, logits.size())) scratch.occurrences[static_cast<size_t>(id)] = 0;
  }
}

void presence_and_frequency(std::span<float> logits, std::span<const TokenId> used, float presence, float frequency,
                            SamplerScratch& scratch) {
  for (const TokenId id : used) {
    if (within(id, logits.size())) ++scratch.occurrences[static_cast<size_t>(id)];
  }
  for (const TokenId id : used) {
    if (!within(id, logits.size())) continue;
    int32_t& occurrences = scratch.occurrences[static_cast<size_t>(id)];
    if (occurrences == 0) continue;  // an earlier occurrence has been charged for all of them
    logits[static_cast<size_t>(id)] -= presence + static_cast<float>(occurrences) * frequency;
    occurrences = 0;
  }
}

void mask(std::span<float> logits, const SampleRow& row, const DrawableIds& ids) {
  hide(logits, ids.pad);
  if (!row.allow_end) hide(logits, ids.eos);
  if (!row.rules.empty()) mask_rules(logits, row);
}

}  // namespace optserve::sampling::logit_steps
