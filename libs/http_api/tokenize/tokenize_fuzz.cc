// Any bytes as the body of /tokenize and /detokenize; each accepts what the other returns.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "http_api/openai/test_models.h"
#include "http_api/tokenize/tokenize.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  using namespace optserve::http_api;
  using nlohmann::json;
  static const Models models = test_models();
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  if (const auto text = detokenize(body, models); text.ok()) {
    check(json::parse(text.value())["prompt"].is_string(), "ids are a text");
  }
  const auto tokens = tokenize(body, models);
  if (!tokens.ok()) return 0;
  const json back{{"model", "story"}, {"tokens", json::parse(tokens.value())["tokens"]}};
  const auto text = detokenize(back.dump(), models);
  check(text.ok() && json::parse(text.value())["prompt"] == json::parse(body)["prompt"], "there and back");
  return 0;
}
