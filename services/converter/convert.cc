#include "converter/convert.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "base/check.h"
#include "checkpoint/writer.h"
#include "converter/disk_room.h"
#include "converter/existing_output.h"
#include "converter/mover.h"
#include "converter/source_reader.h"

namespace optserve::converter {
namespace {

using checkpoint::CheckpointWriter;
using tensor::DType;

constexpr std::string_view kCreatedBy = "optserve " OPTSERVE_VERSION;

// The last part of the output path, with what a model's name must not hold replaced.
std::string name_of(const ConvertOptions& options) {
  if (!options.name.empty()) return options.name;
  std::string path = options.output;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  std::string name = std::filesystem::path(path).filename().string().substr(0, 64);
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_' && c != '-') c = '-';
  return name;
}

Result<SourceReader> open_source(const ConvertOptions& options) {
  return SourceReader::open({.input = options.input,
                             .name = name_of(options),
                             .num_heads = options.num_heads,
                             .vocab_file = options.vocab_file,
                             .merges_file = options.merges_file},
                            options.reader);
}

Result<CheckpointWriter::Plan> make_plan(const ConvertOptions& options, const SourceReader& source,
                                         const std::optional<TokenizerFiles>& tokenizer) {
  CheckpointWriter::Plan plan;
  plan.config = source.config();
  if (tokenizer && tokenizer->tokens > plan.config.vocab)
    return refuse(ErrorCode::kBadRequest, "the vocabulary has " + std::to_string(tokenizer->tokens) +
                                              " tokens, the model " + std::to_string(plan.config.vocab) +
                                              "; it belongs to another model");
  if (tokenizer) plan.config.vocab_real = std::min(plan.config.vocab_real, tokenizer->tokens);
  plan.dtype = options.dtype.value_or(source.natural_dtype());
  check(tensor::is_floating(plan.dtype) && plan.dtype != DType::kF64, "convert: output type");
  plan.quantisation = options.quantisation;
  plan.shards = options.shards > 0 ? options.shards : default_shards(plan.config, plan.quantisation);
  if (Status status = checkpoint::check_shards(plan); !status.ok()) return status.refusal();
  return plan;
}

}  // namespace

int default_shards(const model_spec::OptConfig& config, const std::optional<Quantisation>& quantisation) {
  const std::vector<int> legal = checkpoint::legal_shards(config, quantisation);
  for (const int shards : {8, 4, 2})
    if (std::ranges::find(legal, shards) != legal.end()) return shards;
  return 1;
}

std::string formats_text(const ConvertResult& result) {
  const std::string dtype(tensor::dtype_name(result.dtype));
  return result.quantisation ? std::string(quantisation_name(*result.quantisation)) + " and " + dtype : dtype;
}

Result<ConvertResult> convert(const ConvertOptions& options) {
  const Result<SourceReader> source = open_source(options);
  if (!source.ok()) return source.refusal();
  const SourceSummary& summary = source.value().summary();
  const Result<std::optional<TokenizerFiles>> tokenizer = source.value().tokenizer();
  if (!tokenizer.ok()) return tokenizer.refusal();
  Result<CheckpointWriter::Plan> plan = make_plan(options, source.value(), tokenizer.value());
  if (!plan.ok()) return plan.refusal();
  ConvertResult result;
  result.config = plan.value().config;
  result.dtype = plan.value().dtype;
  result.quantisation = plan.value().quantisation;
  result.shards = plan.value().shards;
  result.parameters = model_spec::parameter_count(result.config);
  result.layout = summary.kind + ", " + summary.layout;
  result.warnings = summary.warnings;
  result.has_tokenizer = tokenizer.value().has_value();
  const checkpoint::SourceInfo origin{result.layout, summary.files};
  result.existed = options.accept_existing && is_output_of(options.output, plan.value(), origin, tokenizer.value());
  if (result.existed) return result;

  auto writer = CheckpointWriter::create(options.output, plan.value());
  if (!writer.ok()) return writer.refusal();
  const uint64_t bytes = writer.value()->shard_bytes() * static_cast<uint64_t>(plan.value().shards);
  if (Status status = check_room(options.output, bytes); !status.ok()) return status.refusal();
  if (result.has_tokenizer)
    writer.value()->add_tokenizer(tokenizer.value()->vocab, tokenizer.value()->merges);
  else
    result.warnings.push_back("no vocabulary was found beside the input; the model will serve token ids only");

  Mover mover(source.value(), *writer.value(), plan.value(), options);
  if (Status status = mover.run(result.warnings); !status.ok()) return status.refusal();
  if (Status status = source.value().check_unchanged(); !status.ok()) return status.refusal();
  result.nonfinite = mover.nonfinite();
  result.bytes_written = mover.bytes_done();
  if (Status status = writer.value()->publish(origin, kCreatedBy); !status.ok()) return status.refusal();
  return result;
}

}  // namespace optserve::converter
