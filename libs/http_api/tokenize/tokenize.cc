#include "http_api/tokenize/tokenize.h"

#include "http_api/openai/json_text.h"
#include "http_api/openai/request_fields.h"
#include "tokenizer/bpe.h"

namespace optserve::http_api {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using enum FieldKind;

// The checked body and its model, which has a vocabulary.
struct Question {
  json body;
  Model model;
};

Parsed<Question> read_question(std::string_view text, const FieldTable& table, const Models& models) {
  Parsed<json> body = parse_body(text);
  if (!body.ok()) return body.error();
  if (auto error = check_fields(body.value(), table)) return *error;
  const auto name = find_field<std::string>(body.value(), "model").value_or("");
  Parsed<Model> model = models.find(name);
  if (!model.ok()) return model.error();
  if (auto error = model.value().need_text("model", "this")) return *error;
  return Question{std::move(body).value(), std::move(model).value()};
}

// The id of a special token whose spelling, as in /tokenizer_info, is the text; -1 for other texts. Evaluation tools
// ask for the ids of special tokens in this way.
TokenId special_id(const tokenizer::Bpe& bpe, std::string_view text) {
  for (const TokenId id : {tokenizer::kEndId, tokenizer::kPadId, tokenizer::kUnknownId}) {
    if (!text.empty() && text == bpe.spelling(id)) return id;
  }
  return -1;
}

ordered_json max_model_len(const Model& model) {
  return model.context > 0 ? ordered_json(model.context) : ordered_json();
}

}  // namespace

const FieldTable& tokenize_fields() {
  static const FieldTable kTable{
      {.name = "model", .kind = kString, .help = "May be left out where only one model is served"},
      {.name = "prompt", .kind = kString, .help = "The text", .required = true},
      {.name = "add_special_tokens", .kind = kBoolean, .fallback = "true", .help = "Begin with the model's `</s>`"},
      {.name = "return_token_strs", .kind = kBoolean, .fallback = "false", .help = "Also give each token as text"}};
  return kTable;
}

const FieldTable& detokenize_fields() {
  static const FieldTable kTable{
      {.name = "model", .kind = kString, .help = "May be left out where only one model is served"},
      {.name = "tokens", .kind = kIdList, .help = "Token ids; special ones add nothing", .required = true}};
  return kTable;
}

Parsed<std::string> tokenize(std::string_view body, const Models& models) {
  const Parsed<Question> question = read_question(body, tokenize_fields(), models);
  if (!question.ok()) return question.error();
  const auto& [fields, model] = question.value();
  std::vector<TokenId> ids;
  if (find_field<bool>(fields, "add_special_tokens").value_or(true) && model.text->leading_id >= 0) {
    ids.push_back(model.text->leading_id);
  }
  const auto& text = fields.at("prompt").get_ref<const std::string&>();
  if (const TokenId special = special_id(model.text->bpe, text); special >= 0) {
    ids.push_back(special);
  } else if (Status status = model.text->encoder.encode(text, ids); !status.ok()) {
    return invalid_value("prompt", "prompt: " + status.refusal().message);
  }
  ordered_json strings;
  if (find_field<bool>(fields, "return_token_strs").value_or(false)) {
    strings = ordered_json::array();
    for (const TokenId id : ids) strings.push_back(model.texts->text(id));
  }
  return json_text({{"count", ids.size()},
                    {"max_model_len", max_model_len(model)},
                    {"tokens", ids},
                    {"token_strs", std::move(strings)}});
}

Parsed<std::string> detokenize(std::string_view body, const Models& models) {
  const Parsed<Question> question = read_question(body, detokenize_fields(), models);
  if (!question.ok()) return question.error();
  const auto& [fields, model] = question.value();
  const auto ids = find_field<std::vector<TokenId>>(fields, "tokens").value_or(std::vector<TokenId>{});
  for (const TokenId id : ids) {
    if (id >= model.vocab) {
      return invalid_value(
          "tokens", "tokens has the id " + std::to_string(id) + ", expected 0 to " + std::to_string(model.vocab - 1));
    }
  }
  return json_text({{"prompt", model.text->streamer.decode_text(ids)}});
}

Parsed<std::string> tokenizer_info(std::string_view name, const Models& models) {
  const Parsed<Model> found = models.find(name);
  if (!found.ok()) return found.error();
  const Model& model = found.value();
  if (auto error = model.need_text("model", "this")) return *error;
  const tokenizer::Bpe& bpe = model.text->bpe;
  const auto spelling = [&](TokenId id) { return id >= 0 ? ordered_json(bpe.spelling(id)) : ordered_json(); };
  return json_text(
      {{"tokenizer_class", "GPT2Tokenizer"},
       {"model_max_length", max_model_len(model)},
       {"vocab_size", bpe.size()},
       {"add_bos_token", model.text->leading_id >= 0},
       {"add_prefix_space", false},
       {"bos_token", spelling(model.text->leading_id)},
       {"bos_token_id", model.text->leading_id >= 0 ? ordered_json(model.text->leading_id) : ordered_json()},
       {"eos_token", spelling(tokenizer::kEndId)},
       {"eos_token_id", tokenizer::kEndId},
       {"pad_token", spelling(tokenizer::kPadId)},
       {"unk_token", spelling(tokenizer::kUnknownId)},
       {"chat_template", nullptr}});
}

}  // namespace optserve::http_api
