#include "tokenizer/text_server.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/limits.h"
#include "base/utf8.h"

namespace optserve::tokenizer {
namespace {

// A message is closed when its items are estimated to reach this size; the largest item then still fits the frame.
constexpr size_t kReplyBytesTarget = limits::kInternalMessageBytesMax / 4;
constexpr size_t kIdBytesMax = 5;      // of one id in msgpack
constexpr size_t kItemOverhead = 256;  // ticket, counts and an error message

size_t estimated_bytes(const protocol::EncodedItem& item) {
  size_t ids = item.ids.size();
  for (const auto& word : item.bad_words) ids += word.size() + 1;
  return kItemOverhead + item.message.size() + ids * kIdBytesMax;
}
size_t estimated_bytes(const protocol::DecodedItem& item) {
  return kItemOverhead + item.message.size() + item.text.size() + item.state.data.size();
}

// Collects items into messages of bounded size.
template <class Message, class Item>
class ReplyBuilder {
 public:
  void add(Item item) {
    const size_t bytes = estimated_bytes(item);
    if (messages_.empty() || bytes_ + bytes > kReplyBytesTarget) {
      messages_.emplace_back();
      bytes_ = 0;
    }
    bytes_ += bytes;
    messages_.back().items.push_back(std::move(item));
  }
  std::vector<Message> take() { return std::move(messages_); }

 private:
  std::vector<Message> messages_;
  size_t bytes_ = 0;
};

// How many of the ids there are up to the end of the stop string that they hold. The streamer says only that they hold
// one; given one id at a time it gives the same text, so the call that ends it names the id.
size_t ids_until_stop(const TextStreamer& streamer, const protocol::DecodeItem& item, std::string_view state) {
  PendingText pending(state);
  for (size_t i = 0; i + 1 < item.ids.size(); ++i) {
    Result<StreamedText> streamed = streamer.push(pending, std::span(item.ids).subspan(i, 1), item.stop, false);
    check(streamed.ok(), "ids that are valid together are valid one by one");
    if (streamed.value().stop_string) return i + 1;
    pending = std::move(streamed.value().pending);
  }
  return item.ids.size();
}

template <class Item>
void set_error(Item& item, const Refusal& why) {
  item.error = why.code;
  item.message = why.message;
}

}  // namespace

TextServer::TextServer(std::vector<std::unique_ptr<model_text::ServedModel>> models) : models_(std::move(models)) {
  check(!models_.empty(), "a tokenizer serves at least one model");
  for (size_t i = 0; i < models_.size(); ++i) {
    if (find(models_[i]->info.name) != models_[i].get()) {
      throw Error("model: the name '" + models_[i]->info.name + "' is given twice");
    }
  }
}

std::vector<protocol::ModelInfo> TextServer::model_infos() const {
  std::vector<protocol::ModelInfo> infos;
  for (const auto& model : models_) infos.push_back(model->info);
  return infos;
}

model_text::ServedModel* TextServer::find(std::string_view name) const {
  const auto found =
      std::find_if(models_.begin(), models_.end(), [&](const auto& model) { return model->info.name == name; });
  return found == models_.end() ? nullptr : found->get();
}

Refusal TextServer::unknown_model(std::string_view name) const {
  std::string served;
  for (const auto& model : models_) served += (served.empty() ? "" : ", ") + model->info.name;
  std::string_view shown = name.substr(0, limits::kModelNameBytesMax);
  shown = shown.substr(0, valid_utf8_prefix(shown));  // the cut may fall into a character
  return refuse(ErrorCode::kUnknownModel,
                "model '" + std::string(shown) + "' is not served by this tokenizer, which has " + served);
}

std::vector<protocol::Encoded> TextServer::encode(const protocol::Encode& request) {
  ReplyBuilder<protocol::Encoded, protocol::EncodedItem> replies;
  for (const protocol::EncodeItem& item : request.items) replies.add(encode_item(item));
  return replies.take();
}

std::vector<protocol::Decoded> TextServer::decode(const protocol::Decode& request) const {
  ReplyBuilder<protocol::Decoded, protocol::DecodedItem> replies;
  for (const protocol::DecodeItem& item : request.items) replies.add(decode_item(item));
  return replies.take();
}

protocol::EncodedItem TextServer::encode_item(const protocol::EncodeItem& item) {
  protocol::EncodedItem answer;
  answer.ticket = item.ticket;
  model_text::ServedModel* model = find(item.model);
  if (model == nullptr) {
    set_error(answer, unknown_model(item.model));
    return answer;
  }
  if (item.text.size() > limits::kPromptBytesMax) {
    set_error(answer,
              refuse(ErrorCode::kBadRequest, "the text has " + std::to_string(item.text.size()) + " bytes, at most " +
                                                 std::to_string(limits::kPromptBytesMax) + " are allowed"));
    return answer;
  }
  ids_.clear();
  if (model->leading_id >= 0) ids_.push_back(model->leading_id);
  if (const Status status = model->encoder.encode(item.text, ids_); !status.ok()) {
    set_error(answer, status.refusal());
    return answer;
  }
  if (ids_.empty()) {
    set_error(answer, refuse(ErrorCode::kBadRequest, "the prompt is empty, and this model's prompts get no first id"));
    return answer;
  }
  answer.count = static_cast<uint32_t>(ids_.size());
  const size_t sent = std::min(ids_.size(), limits::kContextTokensMax);
  answer.ids.assign(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(sent));
  if (const Status status = encode_bad_words(*model, item, answer); !status.ok()) set_error(answer, status.refusal());
  return answer;
}

Status TextServer::encode_bad_words(model_text::ServedModel& model, const protocol::EncodeItem& item,
                                    protocol::EncodedItem& answer) {
  if (item.bad_words.size() > limits::kBadWordsMax) {
    return refuse(ErrorCode::kBadRequest, "bad_words: " + std::to_string(item.bad_words.size()) + " words, at most " +
                                              std::to_string(limits::kBadWordsMax) + " are allowed");
  }
  for (const std::string& word : item.bad_words) {
    if (word.size() > limits::kStopStringBytesMax) {
      return refuse(ErrorCode::kBadRequest, "bad_words: a word has " + std::to_string(word.size()) +
                                                " bytes, at most " + std::to_string(limits::kStopStringBytesMax) +
                                                " are allowed");
    }
    // A word within a text has a space before it, which is part of its first id.
    const std::string bare = word.substr(std::min(word.find_first_not_of(' '), word.size()));
    for (const std::string& form : {bare, " " + bare}) {
      ids_.clear();
      if (Status status = model.encoder.encode(form, ids_); !status.ok()) return status;
      if (!ids_.empty()) answer.bad_words.emplace_back(ids_.begin(), ids_.end());
    }
  }
  return ok_status();
}

protocol::DecodedItem TextServer::decode_item(const protocol::DecodeItem& item) const {
  protocol::DecodedItem answer;
  answer.ticket = item.ticket;
  const model_text::ServedModel* model = find(item.model);
  if (model == nullptr) {
    set_error(answer, unknown_model(item.model));
    return answer;
  }
  const auto outside =
      std::find_if(item.ids.begin(), item.ids.end(), [&](TokenId id) { return id < 0 || id >= model->info.vocab; });
  if (outside != item.ids.end()) {
    set_error(answer,
              refuse(ErrorCode::kBadRequest, "id " + std::to_string(*outside) + " is outside the vocabulary of " +
                                                 std::to_string(model->info.vocab) + " ids"));
    return answer;
  }
  const std::string_view pending(reinterpret_cast<const char*>(item.state.data.data()), item.state.data.size());
  Result<StreamedText> streamed = model->streamer.push(pending, item.ids, item.stop, item.flush);
  if (!streamed.ok()) {
    set_error(answer, streamed.refusal());
    return answer;
  }
  StreamedText& text = streamed.value();
  if (text.piece.size() > limits::kMessageStringMax) {
    set_error(answer,
              refuse(ErrorCode::kBadRequest, std::to_string(item.ids.size()) + " ids give " +
                                                 std::to_string(text.piece.size()) + " bytes of text, at most " +
                                                 std::to_string(limits::kMessageStringMax) + " fit an answer"));
    return answer;
  }
  answer.text = std::move(text.piece);
  answer.state.data.assign(text.pending.begin(), text.pending.end());
  if (text.stop_string) {
    answer.stop = static_cast<int32_t>(*text.stop_string);
    answer.stop_ids = static_cast<uint32_t>(ids_until_stop(model->streamer, item, pending));
    if (item.include_stop) answer.text += item.stop[*text.stop_string];
  }
  return answer;
}

}  // namespace optserve::tokenizer
