#include "model_text/served_model.h"

#include "base/log.h"
#include "base/program.h"
#include "checkpoint/manifest/model_identity.h"

namespace optserve::model_text {

Result<std::unique_ptr<ServedModel>> load_served_model(std::string_view name_and_folder) {
  const size_t equals = name_and_folder.find('=');
  const bool named = equals != std::string_view::npos;
  const std::string folder(named ? name_and_folder.substr(equals + 1) : name_and_folder);
  Result<checkpoint::ModelIdentity> identity = checkpoint::read_model_identity(folder);
  if (!identity.ok()) return identity.refusal();
  const checkpoint::Manifest& manifest = identity.value().manifest;
  if (manifest.vocab_file.empty()) {
    return refuse(ErrorCode::kUnsupportedFormat, folder + ": this checkpoint was written without a tokenizer");
  }
  const Result<std::string> vocab = checkpoint::read_listed_file(folder, manifest, manifest.vocab_file);
  if (!vocab.ok()) return vocab.refusal();
  const Result<std::string> merges = checkpoint::read_listed_file(folder, manifest, manifest.merges_file);
  if (!merges.ok()) return merges.refusal();
  const Result<std::string> added =
      manifest.added_file.empty() ? std::string() : checkpoint::read_listed_file(folder, manifest, manifest.added_file);
  if (!added.ok()) return added.refusal();
  Result<tokenizer::Bpe> bpe = tokenizer::Bpe::parse(vocab.value(), merges.value(), added.value());
  if (!bpe.ok()) return refuse(bpe.refusal().code, folder + ": " + bpe.refusal().message);
  if (bpe.value().size() > static_cast<size_t>(manifest.config.vocab)) {
    return refuse(ErrorCode::kDataCorrupt, folder + ": the vocabulary has " + std::to_string(bpe.value().size()) +
                                               " entries, the model has rows for " +
                                               std::to_string(manifest.config.vocab));
  }
  protocol::ModelInfo info;
  info.name = named ? std::string(name_and_folder.substr(0, equals)) : manifest.config.name;
  info.vocabulary_digest = identity.value().vocabulary_digest;
  info.manifest_digest = identity.value().manifest_digest;
  info.context = static_cast<int32_t>(manifest.config.max_positions);
  info.vocab = static_cast<int32_t>(manifest.config.vocab);
  return std::make_unique<ServedModel>(std::move(info), std::move(bpe).value(),
                                       manifest.config.leads_with_bos ? manifest.config.bos_id : -1);
}

std::vector<std::unique_ptr<ServedModel>> load_served_models(const std::vector<std::string>& names_and_folders) {
  std::vector<std::unique_ptr<ServedModel>> models;
  for (const std::string& name_and_folder : names_and_folders) {
    auto model = load_served_model(name_and_folder);
    if (!model.ok()) throw ConfigurationError("model: " + model.refusal().message);
    const protocol::ModelInfo& info = model.value()->info;
    log_info("model_loaded", {{"name", info.name}, {"vocabulary", info.vocabulary_digest}, {"context", info.context}});
    models.push_back(std::move(model).value());
  }
  return models;
}

}  // namespace optserve::model_text
