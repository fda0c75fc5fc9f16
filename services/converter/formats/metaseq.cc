#include "converter/formats/metaseq.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <set>

#include "converter/formats/metaseq_flat.h"
#include "converter/formats/metaseq_settings.h"

namespace optserve::converter {
namespace {

using checkpoint::PickleDocument;
using checkpoint::PtFile;
using checkpoint::ValueId;
using checkpoint::ValueKind;

// Cuts "<mark><number>" off the end of `text`; nullopt if it does not end so.
std::optional<int64_t> cut_number(std::string& text, std::string_view mark) {
  const size_t at = text.rfind(mark);
  if (at == std::string::npos || at + mark.size() == text.size()) return std::nullopt;
  int64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + at + mark.size(), end, number);
  if (error != std::errc() || stop != end || number < 0) return std::nullopt;
  text.resize(at);
  return number;
}

Result<std::vector<MetaseqFile>> sort_files(const std::vector<std::string>& paths) {
  std::vector<MetaseqFile> files;
  std::set<std::string> stems;
  for (const std::string& path : paths) {
    const auto file = parse_metaseq_name(path);
    if (!file) return refuse(ErrorCode::kUnsupportedFormat, path + ": expected a name that ends in .pt");
    files.push_back(*file);
    stems.insert(file->stem);
  }
  if (stems.size() > 1) {
    std::string list;
    for (const std::string& stem : stems) list += (list.empty() ? "" : ", ") + stem + "*.pt";
    return refuse(ErrorCode::kBadRequest, "several checkpoints were found; name one of " + list);
  }
  std::sort(files.begin(), files.end(), [](const MetaseqFile& a, const MetaseqFile& b) {
    return std::tie(a.part, a.shard) < std::tie(b.part, b.shard);
  });
  const int64_t shards = 1 + std::max_element(files.begin(), files.end(), [](const auto& a, const auto& b) {
                               return a.shard < b.shard;
                             })->shard;
  for (size_t i = 0; i < files.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    if (files[i].part != index / shards || files[i].shard != index % shards) {
      return refuse(ErrorCode::kBadRequest, files[i].path + ": expected part " + std::to_string(index / shards) +
                                                " shard " + std::to_string(index % shards) +
                                                " here; the set of files has a gap or a duplicate");
    }
  }
  if (static_cast<int64_t>(files.size()) != (files.back().part + 1) * shards) {
    return refuse(ErrorCode::kBadRequest, files.back().path + " is the last file found, but shard " +
                                              std::to_string(shards - 1) + " of its part is missing");
  }
  return files;
}

// Refuses training options that change the architecture away from OPT.
Status check_training_options(const PtFile& file) {
  const PickleDocument& doc = file.document();
  const auto unsupported = [&](const std::string& what) {
    return refuse(ErrorCode::kUnsupportedFormat, file.name() + ": trained with " + what + ", which OPT does not have");
  };
  for (const char* option : {"alibi", "use_alibi", "scale_attn", "scale_fc", "use_rotary", "use_rope"}) {
    if (integer_setting(doc, "model", option).value_or(0) != 0) return unsupported(std::string(option) + "=True");
  }
  if (integer_setting(doc, "model", "no_scale_embedding").value_or(1) == 0) {
    return unsupported("no_scale_embedding=False");
  }
  if (integer_setting(doc, "model", "decoder_learned_pos").value_or(1) == 0) {
    return unsupported("decoder_learned_pos=False");
  }
  if (const auto activation = find_setting(doc, "model", "activation_fn")) {
    if (doc.kind(*activation) == ValueKind::kString && doc.text(*activation) != "relu" &&
        doc.text(*activation) != "gelu") {
      return unsupported("activation_fn=" + std::string(doc.text(*activation)));
    }
  }
  return ok_status();
}

Result<ValueId> model_of(const PtFile& file) {
  const PickleDocument& doc = file.document();
  const auto model = doc.find(doc.root(), "model");
  const auto is_tensor = [&](const auto& entry) { return doc.kind(entry.second) == ValueKind::kTensor; };
  const bool is_bare = !model && doc.kind(doc.root()) == ValueKind::kDict && !doc.pairs(doc.root()).empty() &&
                       std::ranges::all_of(doc.pairs(doc.root()), is_tensor);
  if (is_bare) return doc.root();  // a model's weights without what a trainer saves around them
  if (!model || doc.kind(*model) != ValueKind::kDict) {
    return refuse(ErrorCode::kUnsupportedFormat, file.name() +
                                                     ": holds no dictionary 'model', so it is not a Metaseq "
                                                     "checkpoint");
  }
  return *model;
}

// Every entry of 'model' must be a tensor with a text as its key, and no key may occur twice.
Status check_model(const PtFile& file, ValueId model) {
  const PickleDocument& doc = file.document();
  std::set<std::string_view> names;
  for (const auto& [key, value] : doc.pairs(model)) {
    if (doc.kind(key) != ValueKind::kString || doc.text(key).size() > checkpoint::kStoredNameMax) {
      return refuse(ErrorCode::kDataCorrupt, file.name() + ": 'model' has a key that is not the name of a tensor");
    }
    const std::string name(doc.text(key));
    if (!names.insert(doc.text(key)).second) {
      return refuse(ErrorCode::kDataCorrupt, file.name() + ": 'model' holds " + name + " twice");
    }
    if (doc.kind(value) == ValueKind::kTensor) {
      if (PtFile::readable(doc.tensor(value))) continue;
      return refuse(ErrorCode::kUnsupportedFormat, file.name() + ": " + name + " has strides that are not supported");
    }
    const bool has_name = doc.kind(value) == ValueKind::kOpaque || doc.kind(value) == ValueKind::kGlobal;
    return refuse(ErrorCode::kUnsupportedFormat, file.name() + ": 'model' holds " + name + ", which is not a tensor" +
                                                     (has_name ? " but " + std::string(doc.text(value)) : ""));
  }
  return ok_status();
}

ForeignPart named_tensors(PtFile& file, ValueId model) {
  ForeignPart part;
  const PickleDocument& doc = file.document();
  for (const auto& [key, value] : doc.pairs(model)) part.emplace(doc.text(key), tensor_of_pt(file, doc.tensor(value)));
  return part;
}

std::string file_name(const PtFile& file) { return std::filesystem::path(file.name()).filename().string(); }

// The sizes that a file's configuration states.
std::vector<SizeClaim> claims_of(const PtFile& file) {
  using model_spec::OptConfig;
  constexpr std::array<std::pair<const char*, int64_t model_spec::OptConfig::*>, 7> kKeys = {
      {{"decoder_layers", &model_spec::OptConfig::num_layers},
       {"decoder_embed_dim", &model_spec::OptConfig::hidden},
       {"decoder_ffn_embed_dim", &model_spec::OptConfig::ffn},
       {"decoder_attention_heads", &model_spec::OptConfig::num_heads},
       {"decoder_input_dim", &model_spec::OptConfig::embed_dim},
       {"decoder_output_dim", &model_spec::OptConfig::embed_dim},
       {"max_target_positions", &model_spec::OptConfig::max_positions}}};
  std::vector<SizeClaim> claims;
  for (const auto& [key, size] : kKeys) {
    if (const auto value = integer_setting(file.document(), "model", key)) {
      claims.push_back({file_name(file), key, *value, size});
    }
  }
  return claims;
}

// The number of heads is not a claim, since no tensor shows it. All files must say the same.
Status read_hints(ForeignCheckpoint& foreign) {
  const PtFile& first = *foreign.pt_files[0];
  const PickleDocument& doc = first.document();
  const std::vector<SizeClaim> claims = claims_of(first);
  for (const auto& file : foreign.pt_files) {
    const std::vector<SizeClaim> others = claims_of(*file);
    for (size_t i = 0; i < std::min(claims.size(), others.size()); ++i) {
      if (claims[i].key != others[i].key || claims[i].value != others[i].value) {
        return refuse(ErrorCode::kDataCorrupt, "the files do not belong to one checkpoint: " + claims[i].file +
                                                   " says " + claims[i].key + "=" + std::to_string(claims[i].value) +
                                                   ", " + others[i].file + " says " + others[i].key + "=" +
                                                   std::to_string(others[i].value));
      }
    }
  }
  for (const SizeClaim& claim : claims) {
    if (claim.size != &model_spec::OptConfig::num_heads) foreign.hints.sizes.push_back(claim);
  }
  foreign.hints.num_heads = integer_setting(doc, "model", "decoder_attention_heads");
  foreign.hints.num_heads_key = file_name(first) + ": decoder_attention_heads";
  foreign.hints.has_biases = integer_setting(doc, "model", "disable_bias").value_or(0) == 0;
  foreign.hints.has_affine_norms = integer_setting(doc, "model", "disable_affine_ln").value_or(0) == 0;
  if (const auto activation = find_setting(doc, "model", "activation_fn")) {
    if (doc.kind(*activation) == ValueKind::kString && doc.text(*activation) == "gelu") {
      foreign.hints.activation = model_spec::Activation::kGelu;
    }
  }
  foreign.hints.model_parallel_size = integer_setting(doc, "model", "model_parallel_size");
  if (const auto before = integer_setting(doc, "model", "decoder_normalize_before")) {
    foreign.hints.norm_before = *before != 0;
  }
  if (const auto shared = integer_setting(doc, "model", "share_decoder_input_output_embed")) {
    foreign.hints.tied_output = *shared != 0;
  }
  if (const auto separator = integer_setting(doc, "model", "self_attn_doc_sep"); separator.value_or(-1) > 0) {
    foreign.warnings.push_back("trained with document separation (self_attn_doc_sep " + std::to_string(*separator) +
                               "); served as plain OPT");
  }
  return ok_status();
}

Result<ForeignPart> load_part(const std::vector<PtFile*>& shards, int64_t parts, bool& flattened) {
  for (PtFile* file : shards) {
    const Result<ValueId> model = model_of(*file);
    if (!model.ok()) return model.refusal();
    if (Status status = check_model(*file, model.value()); !status.ok()) return status.refusal();
  }
  flattened = is_flattened(*shards[0]);
  if (flattened) return unflatten(shards, parts);
  if (shards.size() > 1) {
    return refuse(ErrorCode::kUnsupportedFormat, shards[0]->name() +
                                                     ": one of several shards, but its weights are not "
                                                     "flattened");
  }
  return named_tensors(*shards[0], model_of(*shards[0]).value());
}

}  // namespace

std::optional<MetaseqFile> parse_metaseq_name(const std::string& path) {
  std::string name = std::filesystem::path(path).filename().string();
  if (!name.ends_with(".pt") || name.size() == 3) return std::nullopt;
  name.resize(name.size() - 3);
  MetaseqFile file;
  file.path = path;
  file.shard = cut_number(name, "-shard").value_or(0);
  file.part = cut_number(name, "-model_part-").value_or(0);
  if (name.ends_with(".pt")) name.resize(name.size() - 3);
  file.stem = name;
  return file;
}

Result<ForeignCheckpoint> open_metaseq(const std::vector<std::string>& paths) {
  const Result<std::vector<MetaseqFile>> sorted = sort_files(paths);
  if (!sorted.ok()) return sorted.refusal();
  const int64_t parts = sorted.value().back().part + 1;
  const size_t shards = sorted.value().size() / static_cast<size_t>(parts);
  ForeignCheckpoint foreign;
  foreign.kind = "metaseq";
  for (const MetaseqFile& entry : sorted.value()) {
    Result<std::unique_ptr<PtFile>> file = PtFile::open(entry.path);
    if (!file.ok()) return file.refusal();
    foreign.files.push_back(
        {file_name(*file.value()), file.value()->source().size(), file.value()->directory_sha256()});
    foreign.pt_files.push_back(std::move(file).value());
  }
  if (Status status = check_training_options(*foreign.pt_files[0]); !status.ok()) return status.refusal();
  bool flattened = false;
  for (size_t part = 0; part < static_cast<size_t>(parts); ++part) {
    std::vector<PtFile*> files;
    for (size_t shard = 0; shard < shards; ++shard) files.push_back(foreign.pt_files[part * shards + shard].get());
    Result<ForeignPart> tensors = load_part(files, parts, flattened);
    if (!tensors.ok()) return tensors.refusal();
    foreign.parts.push_back(std::move(tensors).value());
  }
  if (Status status = read_hints(foreign); !status.ok()) return status.refusal();
  foreign.layout = std::to_string(parts) + (parts == 1 ? " model-parallel part" : " model-parallel parts");
  if (shards > 1) foreign.layout += " of " + std::to_string(shards) + " FSDP shards";
  if (flattened) foreign.layout += ", flattened";
  return foreign;
}

}  // namespace optserve::converter
