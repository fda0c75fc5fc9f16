#include "support/demo_model.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "converter/write/convert.h"

namespace optserve::test_support {

std::string demo_file(const std::string& name) { return OPTSERVE_DEMO_MODEL "/" + name; }

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) throw Error("cannot read " + path);
  return std::move(text).str();
}

const DemoGoldens& demo_goldens() {
  static const DemoGoldens goldens = [] {
    const nlohmann::json json = nlohmann::json::parse(read_file(demo_file("golden.json")));
    DemoGoldens loaded;
    for (const auto& item : json.at("cases")) {
      loaded.cases.push_back({item.at("prompt"), item.at("prompt_ids"), item.at("prompt_logprobs"),
                              item.at("greedy_ids"), item.at("greedy_text")});
    }
    const auto& heldout = json.at("heldout");
    loaded.heldout = {heldout.at("tokens"), heldout.at("scored"), heldout.at("perplexity")};
    for (const auto& item : json.at("generate")) {
      const auto& arguments = item.at("arguments");
      loaded.generate.push_back({item.at("prompt_ids"), item.at("ids"), arguments.value("repetition_penalty", 1.0f),
                                 arguments.value("num_beams", 1), arguments.value("length_penalty", 1.0f),
                                 arguments.value("early_stopping", false), arguments.value("no_repeat_ngram_size", 0)});
    }
    return loaded;
  }();
  return goldens;
}

void convert_demo_model(const std::string& folder, int shards, const std::string& quantisation, DType dtype,
                        const std::string& smooth_ranges) {
  converter::ConvertOptions options;
  options.input = demo_file("");
  options.output = folder;
  options.name = "demo";
  options.shards = shards;
  options.quantisation = quant::find_quantisation(quantisation);
  options.dtype = dtype;
  options.smooth_ranges = smooth_ranges;
  const auto result = converter::convert(options, SystemClock());
  if (!result.ok()) throw Error(result.refusal().message);
}

}  // namespace optserve::test_support
