#include "http_api/openai/models.h"

#include <algorithm>
#include <set>

#include "http_api/openai/json_text.h"

namespace optserve::http_api {
namespace {

using nlohmann::ordered_json;

ordered_json card(const Model& model, int64_t created) {
  ordered_json object{{"id", model.name},       {"object", "model"},  {"created", created},
                      {"owned_by", "optserve"}, {"root", model.name}, {"parent", nullptr}};
  object["max_model_len"] = model.context > 0 ? ordered_json(model.context) : ordered_json();
  return object;
}

}  // namespace

std::optional<ApiError> Model::need_text(std::string_view param, std::string_view what) const {
  if (text != nullptr) return std::nullopt;
  return unsupported(param, std::string(what) + " needs the model's vocabulary, and this gateway was started without " +
                                "one for '" + name + "' (--model " + name + "=FOLDER)");
}

Models::Models(std::vector<std::unique_ptr<model_text::ServedModel>> loaded, int64_t created) : created_(created) {
  for (auto& text : loaded) {
    if (this->loaded(text->info.name) != nullptr) {
      throw Error("model: the name '" + text->info.name + "' is given twice");
    }
    auto texts = std::make_unique<TokenTexts>(text->bpe);
    loaded_.push_back({std::move(text), std::move(texts)});
  }
}

void Models::set_served(std::vector<std::string> names) { served_ = std::move(names); }

const Models::Loaded* Models::loaded(std::string_view name) const {
  const auto found = std::ranges::find_if(loaded_, [&](const Loaded& one) { return one.text->info.name == name; });
  return found == loaded_.end() ? nullptr : &*found;
}

std::vector<std::string> Models::names() const {
  std::set<std::string> all;
  for (const Loaded& one : loaded_) all.insert(one.text->info.name);
  if (served_) all.insert(served_->begin(), served_->end());
  return {all.begin(), all.end()};
}

Parsed<Model> Models::find(std::string_view name) const {
  if (name.empty()) {
    const std::vector<std::string> all = names();
    if (all.size() == 1) return find(all.front());
    ApiError error = invalid_value(
        "model", "model is missing, and this server has " + std::to_string(all.size()) + " models (GET /v1/models)");
    error.code = "missing_required_parameter";
    return error;
  }
  Model model;
  model.name = name;
  if (const Loaded* one = loaded(name)) {
    const protocol::ModelInfo& info = one->text->info;
    model.context = info.context;
    model.vocab = info.vocab;
    model.fingerprint = "fp_" + info.manifest_digest.substr(0, 12);
    model.texts = one->texts.get();
    model.text = one->text.get();
    return model;
  }
  const bool may_be_served = !served_ || std::ranges::find(*served_, name) != served_->end();
  if (!may_be_served) return unknown_model(name);
  return model;
}

std::string Models::list_body() const {
  ordered_json cards = ordered_json::array();
  for (const std::string& name : names()) cards.push_back(card(find(name).value(), created_));
  return json_text({{"object", "list"}, {"data", std::move(cards)}});
}

Parsed<std::string> Models::card_body(std::string_view name) const {
  const std::vector<std::string> all = names();
  if (std::ranges::find(all, name) == all.end()) return unknown_model(name);
  return json_text(card(find(name).value(), created_));
}

}  // namespace optserve::http_api
