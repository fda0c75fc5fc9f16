// The tokenizer of one model, loaded from a sharded checkpoint, with the identity under which it registers.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "protocol/message_types.h"
#include "tokenizer/bpe.h"
#include "tokenizer/encoder.h"
#include "tokenizer/text_streamer.h"

namespace optserve::model_text {

// Owned by one thread. Not movable: encoder and streamer point at the tokenizer::Bpe.
struct ServedModel {
  ServedModel(protocol::ModelInfo its_info, tokenizer::Bpe its_bpe, TokenId its_leading_id)
      : info(std::move(its_info)), bpe(std::move(its_bpe)), leading_id(its_leading_id), encoder(bpe), streamer(bpe) {}
  ServedModel(const ServedModel&) = delete;
  ServedModel& operator=(const ServedModel&) = delete;

  protocol::ModelInfo info;
  tokenizer::Bpe bpe;
  TokenId leading_id;  // the id with which every prompt begins; -1: none
  tokenizer::Encoder encoder;
  tokenizer::TextStreamer streamer;
};

// "NAME=FOLDER", or "FOLDER" for the name in its manifest. Reads the tokenizer files that the manifest lists, and
// refuses them if their size or SHA-256 differs or if they contain more ids than the model has rows.
Result<std::unique_ptr<ServedModel>> load_served_model(std::string_view name_and_folder);
// Loads the models of a program's options `model` and logs each. Throws ConfigurationError.
std::vector<std::unique_ptr<ServedModel>> load_served_models(const std::vector<std::string>& names_and_folders);

}  // namespace optserve::model_text
