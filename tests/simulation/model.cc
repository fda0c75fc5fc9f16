#include "simulation/model.h"

#include "simulation/dice.h"
#include "tokenizer/small_vocabulary.h"

namespace optserve::simulation {

Model::Model() : info_{"opt", "v1", "m1", 512, 0}, bpe_(tokenizer::story_vocabulary().make()), decoder_(bpe_) {
  info_.vocab = static_cast<int32_t>(bpe_.size());
  for (char c = 'a'; c <= 'z'; ++c) words_.push_back(kFirstByte + c);
  for (TokenId merged = 260; merged < info_.vocab - 1; ++merged) words_.push_back(merged);
  // Halves of characters, in an order that makes whole ones now and then.
  words_.insert(words_.end(), {kFirstByte + 0xC3, kFirstByte + 0xA9, kFirstByte + 0xF0, kFirstByte + 0x9F});
}

const Model& Model::instance() {
  static const Model model;
  return model;
}

std::unique_ptr<model_text::ServedModel> Model::serve() const {
  return std::make_unique<model_text::ServedModel>(info_, bpe_, kEndOfText);
}

TokenId Model::token(const sampling::SamplingParams& sampling, uint64_t position) const {
  const uint64_t x = mix(sampling.seed, position);
  if (x % 61 == 0 && !sampling.ignore_eos) return kEndOfText;
  return words_[(x >> 8) % words_.size()];
}

std::string Model::text_of(const std::vector<TokenId>& ids) const { return decoder_.decode_text(ids); }

Model::Reference Model::reference(const protocol::JobSpec& spec) const {
  Reference expected;
  for (uint64_t position = 0; position < static_cast<uint64_t>(spec.max_new_tokens); ++position) {
    const TokenId id = token(spec.sampling, position);
    expected.ids.push_back(id);
    if (id == kEndOfText) {
      expected.reason = sampling::FinishReason::kEndOfText;
      break;
    }
    if (spec.stop.empty()) continue;
    // Stop strings are ASCII, so what the last character becomes does not matter.
    const std::string text = text_of(expected.ids);
    size_t first_end = std::string::npos, begin = 0;
    for (const std::string& stop : spec.stop) {
      const size_t found = text.find(stop);
      if (found == std::string::npos) continue;
      const size_t end = found + stop.size();
      if (first_end != std::string::npos && (end > first_end || (end == first_end && found >= begin))) continue;
      first_end = end;
      begin = found;
    }
    if (first_end == std::string::npos) continue;
    expected.text = text.substr(0, begin);
    expected.reason = sampling::FinishReason::kStop;
    return expected;
  }
  expected.text = text_of(expected.ids);
  return expected;
}

}  // namespace optserve::simulation
