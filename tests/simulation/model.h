// The model that all workers of a run serve: its vocabulary is small but real, its tokens follow from the seed and the
// position alone, so the output of a job is known before it runs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model_text/served_model.h"
#include "protocol/message_types.h"

namespace optserve::simulation {

inline constexpr TokenId kEndOfText = 2;
inline constexpr TokenId kFirstByte = 4;                 // the id of byte 0
inline constexpr TokenId kNeverSaid = kFirstByte + '!';  // by the model

class Model {
 public:
  Model();
  static const Model& instance();

  const protocol::ModelInfo& info() const { return info_; }
  std::unique_ptr<model_text::ServedModel> serve() const;  // what a tokenizer process loads
  // At an output position.
  TokenId token(const sampling::SamplingParams& sampling, uint64_t position) const;
  float logprob(TokenId target) const { return -static_cast<float>(target % 16); }

  // What a job's output must be, however often it was interrupted.
  struct Reference {
    std::vector<TokenId> ids;
    std::string text;
    sampling::FinishReason reason = sampling::FinishReason::kLength;
  };
  Reference reference(const protocol::JobSpec& spec) const;

 private:
  std::string text_of(const std::vector<TokenId>& ids) const;

  protocol::ModelInfo info_;
  tokenizer::Bpe bpe_;
  tokenizer::TextStreamer decoder_;
  std::vector<TokenId> words_;  // what it says
};

}  // namespace optserve::simulation
