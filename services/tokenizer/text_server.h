// Answers the scheduler's questions about text. Holds nothing between calls but the models themselves: any tokenizer
// may answer any question of any job.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "model_text/served_model.h"
#include "protocol/service_messages.h"

namespace optserve::tokenizer {

class TextServer {
 public:
  // At least one model; throws Error when two have the same name.
  explicit TextServer(std::vector<std::unique_ptr<model_text::ServedModel>> models);

  std::vector<protocol::ModelInfo> model_infos() const;

  // One answer per item in the same order, cut into messages that stay below the frame limit. A fault of an item
  // becomes the error in its answer.
  std::vector<protocol::Encoded> encode(const protocol::Encode& request);
  std::vector<protocol::Decoded> decode(const protocol::Decode& request) const;

 private:
  model_text::ServedModel* find(std::string_view name) const;  // nullptr if not served
  Refusal unknown_model(std::string_view name) const;
  protocol::EncodedItem encode_item(const protocol::EncodeItem& item);
  Status encode_bad_words(model_text::ServedModel& model, const protocol::EncodeItem& item,
                          protocol::EncodedItem& answer);
  protocol::DecodedItem decode_item(const protocol::DecodeItem& item) const;

  std::vector<std::unique_ptr<model_text::ServedModel>> models_;
  std::vector<TokenId> ids_;  // scratch
};

}  // namespace optserve::tokenizer
