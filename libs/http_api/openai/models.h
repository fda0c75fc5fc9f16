// The models that this gateway can answer for, and `/v1/models`.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http_api/openai/api_error.h"
#include "http_api/openai/token_texts.h"
#include "model_text/served_model.h"

namespace optserve::http_api {

// A model as requests see it.
struct Model {
  std::string name;
  int32_t context = 0;                      // tokens of prompt and output together; 0: not known
  int32_t vocab = 0;                        // ids are below this; 0: not known
  std::string fingerprint{};                // `system_fingerprint`; empty: not known
  const TokenTexts* texts = nullptr;        // null if the gateway has no folder of this model
  model_text::ServedModel* text = nullptr;  // the same

  // Refuses a request that needs the vocabulary if the model has none. `what` begins the sentence: "echo of token ids".
  std::optional<ApiError> need_text(std::string_view param, std::string_view what) const;
};

// Models with a folder are given once, at the start; names that schedulers serve may change at any time. It belongs to
// one thread, like the encoders of its models. Pointers to a Model's texts are valid as long as the Models.
class Models {
 public:
  // Throws Error when two have the same name. `created`: seconds since 1970, for the cards.
  explicit Models(std::vector<std::unique_ptr<model_text::ServedModel>> loaded, int64_t created = 0);

  // Sets what the schedulers serve, according to their status. Before the first call, every name is passed on to them.
  void set_served(std::vector<std::string> names);

  // The model of a request: refuses (404) a name that is neither loaded nor served. An empty name means the only model
  // there is.
  Parsed<Model> find(std::string_view name) const;
  // The names of all models, in their order.
  std::vector<std::string> names() const;
  int64_t created() const { return created_; }

  std::string list_body() const;                               // GET /v1/models
  Parsed<std::string> card_body(std::string_view name) const;  // GET /v1/models/{id}

 private:
  struct Loaded {
    std::unique_ptr<model_text::ServedModel> text;
    std::unique_ptr<TokenTexts> texts;
  };
  const Loaded* loaded(std::string_view name) const;

  std::vector<Loaded> loaded_;
  std::optional<std::vector<std::string>> served_;
  int64_t created_;
};

}  // namespace optserve::http_api
