#include "converter/write/conversion_record.h"

#include <nlohmann/json.hpp>

#include "checkpoint/io/sha256.h"

namespace optserve::converter {

std::string conversion_record(const ConversionIdentity& identity) {
  const checkpoint::ShardPlan& plan = identity.plan;
  nlohmann::ordered_json root;
  root["program"] = identity.program;
  root["format_version"] = checkpoint::kFormatVersion;
  root["config"] = model_spec::to_json(plan.config);
  root["dtype"] = tensor::dtype_name(plan.dtype);
  root["quantisation"] = plan.quantisation ? quantisation_name(*plan.quantisation) : "none";
  root["shards"] = plan.shards;
  root["tokenizer"] = nullptr;
  if (identity.tokenizer)
    root["tokenizer"] = {{"vocab", checkpoint::to_hex(checkpoint::sha256_of(identity.tokenizer->vocab))},
                         {"merges", checkpoint::to_hex(checkpoint::sha256_of(identity.tokenizer->merges))}};
  root["allow_nonfinite"] = identity.allow_nonfinite;
  root["check_source"] = identity.check_source;
  root["source"] = {{"layout", identity.source.layout}};
  if (const auto& smoothing = identity.source.smoothing)
    root["source"]["smoothing"] = {{"alpha", smoothing->alpha}, {"ranges_sha256", smoothing->ranges_sha256}};
  for (const checkpoint::SourceFile& file : identity.source.files)
    root["source"]["files"].push_back(
        {{"name", file.name}, {"bytes", file.bytes}, {"index_sha256", file.index_sha256}});
  return root.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace optserve::converter
