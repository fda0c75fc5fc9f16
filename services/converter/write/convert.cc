#include "converter/write/convert.h"

#include <algorithm>
#include <filesystem>

#include "base/check.h"
#include "base/hex.h"
#include "base/input_check.h"
#include "base/sha256.h"
#include "checkpoint/writer.h"
#include "converter/transform/padded_rows.h"
#include "converter/transform/smoothing.h"
#include "converter/write/conversion_identity.h"
#include "converter/write/passes.h"
#include "tokenizer/bpe.h"

namespace optserve::converter {
namespace {

using checkpoint::ShardPlan;
using checkpoint::SharedStaging;

std::vector<TokenId> end_ids(const model_spec::OptConfig& config) {
  std::vector<TokenId> ids = {config.eos_id};
  ids.insert(ids.end(), config.more_eos_ids.begin(), config.more_eos_ids.end());
  return ids;
}

constexpr int64_t kPassMibMax = int64_t{1} << 40;
constexpr std::string_view kCreatedBy = "optserve " OPTSERVE_VERSION;

Status check_options(const ConvertOptions& options) {
  if (options.input.empty() || options.output.empty()) {
    return refuse(ErrorCode::kBadRequest, "both an input and an output are needed");
  }
  if (options.shards < 0 || options.num_heads < 0) {
    return refuse(ErrorCode::kBadRequest, "the numbers of shards and of heads must not be negative");
  }
  return check_range("pass-mib-max", options.pass_mib_max, 0, kPassMibMax);
}

// The last part of the output path, with the characters replaced that a model's name must not have.
std::string name_of(const ConvertOptions& options) {
  if (!options.name.empty()) return options.name;
  std::string path = options.output;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  std::string name = std::filesystem::path(path).filename().string().substr(0, 64);
  for (char& c : name) {
    if (!is_name({&c, 1})) c = '-';
  }
  return name;
}

// The checks are those that optserve-tokenizer makes when it starts.
Status apply_tokenizer(const TokenizerFiles& files, model_spec::OptConfig& config) {
  const auto bpe = tokenizer::Bpe::parse(files.vocab, files.merges, files.added);
  if (!bpe.ok()) {
    return refuse(bpe.refusal().code, "the tokenizer cannot be served: " + bpe.refusal().message +
                                          "; --tokenizer none converts the model to serve token ids only");
  }
  if (files.tokens > config.vocab) {
    return refuse(ErrorCode::kBadRequest, "the vocabulary has " + std::to_string(files.tokens) + " tokens, the model " +
                                              std::to_string(config.vocab) + "; it belongs to another model");
  }
  config.vocab_real = std::min(config.vocab_real, files.tokens);
  for (const TokenId id : end_ids(config)) {
    if (id >= config.vocab_real) {
      return refuse(ErrorCode::kBadRequest,
                    "id " + std::to_string(id) + " ends texts as the configuration says, but the tokenizer has " +
                        std::to_string(files.tokens) +
                        " tokens; the file of its added tokens is probably missing (added_tokens.json, tokenizer.json "
                        "or tokenizer_config.json)");
    }
  }
  if (files.bos_id >= 0) config.bos_id = files.bos_id;
  config.leads_with_bos = files.leads_with_bos;
  return model_spec::validate(config);
}

// Warnings about the tokenizer that is used.
void note_tokenizer(const TokenizerFiles& files, const model_spec::OptConfig& config,
                    std::vector<std::string>& warnings) {
  warnings.insert(warnings.end(), files.notes.begin(), files.notes.end());
  const std::vector<TokenId> ends = end_ids(config);
  if (files.eos_id >= 0 && std::ranges::find(ends, files.eos_id) == ends.end()) {
    warnings.push_back("the tokenizer's eos_token is id " + std::to_string(files.eos_id) +
                       ", which does not end texts: the model's configuration names id " + std::to_string(ends[0]));
  }
}

Result<ShardPlan> make_plan(const ConvertOptions& options, const CagedModel& source,
                            const std::optional<TokenizerFiles>& tokenizer) {
  ShardPlan plan;
  plan.config = source.config();
  if (tokenizer) {
    if (Status status = apply_tokenizer(*tokenizer, plan.config); !status.ok()) return status.refusal();
  }
  plan.dtype = options.dtype.value_or(source.natural_dtype());
  check(is_floating(plan.dtype) && plan.dtype != DType::kF64, "convert: output type");
  plan.quantisation = options.quantisation;
  plan.shards = options.shards > 0 ? options.shards : default_shards(plan.config, plan.quantisation);
  plan.config = model_spec::with_padded_vocab(plan.config, plan.shards);
  if (Status status = checkpoint::check_plan(plan); !status.ok()) return status.refusal();
  return plan;
}

ConversionIdentity identity_of(const Conversion& conversion) {
  return {.plan = conversion.plan,
          .source = conversion.origin,
          .tokenizer = conversion.tokenizer,
          .allow_nonfinite = conversion.options.allow_nonfinite,
          .check_source = conversion.options.check_source,
          .program = std::string(kCreatedBy)};
}

// The tokenizer's files and the manifest.
Result<std::vector<checkpoint::NamedText>> closing_texts(const Conversion& conversion,
                                                         std::vector<checkpoint::FileEntry> files) {
  std::vector<checkpoint::NamedText> texts;
  if (conversion.tokenizer) {
    texts = {{std::string(checkpoint::kVocabName), conversion.tokenizer->vocab},
             {std::string(checkpoint::kMergesName), conversion.tokenizer->merges}};
  }
  if (conversion.tokenizer && !conversion.tokenizer->added.empty()) {
    texts.push_back({std::string(checkpoint::kAddedName), conversion.tokenizer->added});
  }
  for (const checkpoint::NamedText& file : texts) {
    files.push_back({file.name, file.text.size(), to_hex(sha256(file.text))});
  }
  const std::string manifest = checkpoint::manifest_text(
      checkpoint::make_manifest(conversion.plan, std::move(files), {conversion.origin, std::string(kCreatedBy)}));
  if (const auto readable = checkpoint::parse_manifest(manifest); !readable.ok()) return readable.refusal();
  texts.push_back({std::string(checkpoint::kManifestName), manifest});
  return texts;
}

Status publish(const Conversion& conversion, SharedStaging& staging, ConvertResult& result) {
  std::vector<checkpoint::FileEntry> files;
  for (const std::optional<checkpoint::ShardRecord>& record : staging.records()) {
    if (!record) throw Error(staging.path() + ": a finished shard has gone");
    files.push_back({checkpoint::shard_file_name(static_cast<int>(files.size()), conversion.plan.shards), record->bytes,
                     record->sha256});
    result.nonfinite += record->notes.nonfinite;
    result.warnings.insert(result.warnings.end(), record->notes.warnings.begin(), record->notes.warnings.end());
  }
  const auto texts = closing_texts(conversion, std::move(files));
  if (!texts.ok()) return texts.refusal();
  return staging.publish(texts.value());
}

// Finished shards are worthless only if something is wrong with the input.
bool is_fault_of_input(const Refusal& refusal) {
  return refusal.code != ErrorCode::kCancelled && refusal.code != ErrorCode::kUnavailable;
}

std::string kept_text(const SharedStaging& staging, int shards) {
  const int finished = staging.finished();
  if (finished == 0) return "";
  return "; " + std::to_string(finished) + " of " + std::to_string(shards) + " shards are finished and kept in " +
         staging.path() + ": the same conversion goes on from them, --restart removes them";
}

Status convert_shards(const Conversion& conversion, SharedStaging& staging, const Clock& clock, ConvertResult& result) {
  const uint64_t shard_bytes = checkpoint::shard_bytes(conversion.plan);
  const uint64_t unfinished = static_cast<uint64_t>(conversion.plan.shards - staging.finished()) * shard_bytes;
  const uint64_t written = std::min(unfinished, staging.bytes_of_others());
  if (Status status = checkpoint::check_room(conversion.options.output, unfinished - written); !status.ok()) {
    return status;
  }
  Passes passes(conversion, staging, clock);
  if (Status status = passes.run(); !status.ok()) return status;
  result.bytes_written = passes.bytes_total();
  return publish(conversion, staging, result);
}

Status run(const Conversion& conversion, const Clock& clock, ConvertResult& result) {
  const ConvertOptions& options = conversion.options;
  const ConversionIdentity identity = identity_of(conversion);
  auto joined =
      SharedStaging::join({options.output, conversion_record(identity), conversion.plan.shards, options.restart});
  if (!joined.ok() && is_output_of(options.output, identity)) {  // by somebody else, just now
    result.existed = true;
    return ok_status();
  }
  if (!joined.ok()) return joined.refusal();
  SharedStaging& staging = *joined.value();
  try {
    Status status = convert_shards(conversion, staging, clock, result);
    if (status.ok()) return status;
    if (is_fault_of_input(status.refusal())) staging.discard();
    return refuse(status.refusal().code,
                  status.refusal().message +
                      (is_fault_of_input(status.refusal()) ? "" : kept_text(staging, conversion.plan.shards)));
  } catch (const Error& error) {
    throw Error(error.what() + kept_text(staging, conversion.plan.shards));
  }
}

}  // namespace

Result<CagedModel> open_source(const ConvertOptions& options, const std::string& name) {
  return CagedModel::open({.input = options.input,
                           .name = name,
                           .num_heads = options.num_heads,
                           .head = options.head,
                           .vocab_file = options.vocab_file,
                           .merges_file = options.merges_file,
                           .prompt_tokens = options.prompt_tokens},
                          options.reader);
}

int default_shards(const model_spec::OptConfig& config, const std::optional<quant::Quantisation>& quantisation) {
  const std::vector<int> legal = checkpoint::legal_shards(config, quantisation);
  for (const int shards : {8, 4, 2}) {
    if (std::ranges::find(legal, shards) != legal.end()) return shards;
  }
  return 1;
}

std::string summary_text(const std::string& output, const ConvertResult& result) {
  const std::string dtype(dtype_name(result.dtype));
  const std::string formats =
      result.quantisation ? std::string(quant::quantisation_name(*result.quantisation)) + " and " + dtype : dtype;
  return output + ": " + result.config.name + ", " + std::to_string(result.parameters) + " parameters in " + formats +
         ", " + std::to_string(result.shards) + (result.shards == 1 ? " shard, " : " shards, ") +
         (result.existed ? "written before" : std::to_string(result.bytes_written) + " bytes") + ", from " +
         result.layout;
}

Result<ConvertResult> convert(const ConvertOptions& options, const Clock& clock) {
  if (Status status = check_options(options); !status.ok()) return status.refusal();
  const Result<CagedModel> source = open_source(options, name_of(options));
  if (!source.ok()) return source.refusal();
  const ModelSummary& summary = source.value().summary();
  const Result<std::optional<TokenizerFiles>> tokenizer =
      options.has_tokenizer ? source.value().tokenizer() : std::optional<TokenizerFiles>();
  if (!tokenizer.ok()) return tokenizer.refusal();
  const Result<ShardPlan> plan = make_plan(options, source.value(), tokenizer.value());
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
  if (tokenizer.value()) note_tokenizer(*tokenizer.value(), result.config, result.warnings);
  if (!result.has_tokenizer && options.has_tokenizer) {
    result.warnings.push_back("no vocabulary was found beside the input; the model will serve token ids only");
  }
  const auto smoothed = open_smoothing(options, source.value());
  if (!smoothed.ok()) return smoothed.refusal();
  const WeightRows* rows = &source.value();
  checkpoint::SourceInfo origin{result.layout, summary.files};
  if (const auto& found = smoothed.value()) {
    rows = &found->rows;
    origin.smoothing = found->smoothing;
    if (!found->warning.empty()) result.warnings.push_back(found->warning);
  }
  const PaddedRows padded(*rows, plan.value().config);
  const Conversion conversion{options, source.value(), padded, plan.value(), tokenizer.value(), std::move(origin)};
  if (Status status = run(conversion, clock, result); !status.ok()) return status.refusal();
  return result;
}

}  // namespace optserve::converter
