#include "converter/formats/mapper.h"

#include <algorithm>
#include <array>
#include <utility>

#include "converter/formats/huggingface_names.h"

namespace optserve::converter {
namespace {

using model_spec::Split;
using model_spec::TensorSpec;

constexpr size_t kMappingFaultsShown = 20;
constexpr std::string_view kTokenTable = "decoder.embed_tokens.weight";

using Renaming = std::pair<std::string_view, std::string_view>;
constexpr std::array<Renaming, 7> kTopLevel = {{{"embed_tokens.", "embed_tokens."},
                                                {"embed_positions.", "embed_positions."},
                                                {"project_in.", "project_in_dim."},
                                                {"project_out.", "project_out_dim."},
                                                {"final_norm.", "layer_norm."},
                                                {"output_projection.", "output_projection."},
                                                {"layers.", "layers."}}};
constexpr std::array<Renaming, 6> kInLayer = {{{".attention_norm.", ".self_attn_layer_norm."},
                                               {".attention.qkv.", ".self_attn.qkv_proj."},
                                               {".attention.out.", ".self_attn.out_proj."},
                                               {".ffn_norm.", ".final_layer_norm."},
                                               {".ffn.up.", ".fc1."},
                                               {".ffn.down.", ".fc2."}}};

// Buffers that carry no weights.
bool is_ignored(std::string_view name) {
  return name == "decoder.version" || name.ends_with("._float_tensor") || name == "decoder.embed_out";
}

// Only Metaseq fuses these matrices, and not in its oldest files.
bool has_separate_qkv(const ForeignCheckpoint& foreign, const ForeignPart& part, const std::string& prefix) {
  return foreign.kind != "metaseq" || part.contains(prefix + "k_proj.weight");
}

// Under which names a part holds a vector of the table, and how many elements of it each.
std::vector<std::pair<std::string, int64_t>> names_of_vector(const ForeignCheckpoint& foreign, const ForeignPart& part,
                                                             const TensorSpec& spec, int64_t parts) {
  const std::string name = metaseq_name(spec.name);
  if (spec.split == Split::kReplicated) return {{name, spec.rows}};
  const size_t at = name.find("qkv_proj.");
  if (spec.split != Split::kQkvRows || !has_separate_qkv(foreign, part, name.substr(0, at))) {
    return {{name, spec.rows / parts}};
  }
  std::vector<std::pair<std::string, int64_t>> names;
  for (const char* letter : {"q", "k", "v"}) {
    names.emplace_back(std::string(name).replace(at, 3, letter), spec.rows / 3 / parts);
  }
  return names;
}

std::string explain(std::string_view name) {
  for (std::string_view feature : {"ffn_layernorm", "attn_ln", "alibi", "moe_layer", "experts", "rotary"}) {
    if (name.find(feature) != std::string_view::npos) {
      return " (" + std::string(feature) + " is not a feature of OPT, and is not supported)";
    }
  }
  return "";
}

}  // namespace

std::string metaseq_name(const std::string& canonical) {
  std::string name = canonical;
  for (const auto& [ours, theirs] : kTopLevel) {
    if (!name.starts_with(ours)) continue;
    name = "decoder." + std::string(theirs) + name.substr(ours.size());
    break;
  }
  for (const auto& [ours, theirs] : kInLayer) {
    if (const size_t at = name.find(ours); at != std::string::npos) return name.replace(at, ours.size(), theirs);
  }
  return name;
}

std::string file_spelling(const ForeignCheckpoint& foreign, const std::string& metaseq_name) {
  const auto found = foreign.file_names.find(metaseq_name);
  if (found != foreign.file_names.end()) return found->second;
  return foreign.kind == "huggingface" ? huggingface_spelling(metaseq_name) : metaseq_name;
}

Status add_absent(ForeignCheckpoint& foreign, const model_spec::OptConfig& config) {
  const ForeignHints& hints = foreign.hints;
  if (hints.has_biases && hints.has_affine_norms) return ok_status();
  const DType dtype = foreign.parts[0].at(std::string(kTokenTable))->dtype();
  const auto parts = static_cast<int64_t>(foreign.parts.size());
  for (const TensorSpec& spec : model_spec::opt_tensors(config)) {
    const bool is_norm = spec.name.find("norm.") != std::string::npos;
    const bool is_bias = spec.name.ends_with(".bias");
    if (is_norm ? hints.has_affine_norms : hints.has_biases || !is_bias) continue;
    for (ForeignPart& part : foreign.parts) {
      for (const auto& [name, rows] : names_of_vector(foreign, part, spec, parts)) {
        if (part.contains(name)) {
          return refuse(ErrorCode::kDataCorrupt, "the configuration says that the model has no " +
                                                     std::string(is_norm ? "weights of norms" : "biases") +
                                                     ", but the files hold " + file_spelling(foreign, name));
        }
        part.emplace(name, tensor_of_constant(dtype, {rows}, is_bias ? 0.0f : 1.0f));
      }
    }
  }
  return ok_status();
}

std::string other_part_count(const ForeignCheckpoint& foreign) {
  const auto parts = static_cast<int64_t>(foreign.parts.size());
  if (foreign.hints.model_parallel_size.value_or(parts) == parts) return "";
  return "\n  its configuration says " + std::to_string(*foreign.hints.model_parallel_size) +
         " model-parallel parts, but " + std::to_string(parts) + " were found";
}

std::string Mapper::part_text(size_t part) const {
  return foreign_.parts.size() == 1 ? "" : "part " + std::to_string(part) + ": ";
}

ForeignTensor* Mapper::expect(size_t part, const std::string& name, const Shape& shape) {
  used_.insert(name);
  const auto found = foreign_.parts[part].find(name);
  if (found == foreign_.parts[part].end()) {
    faults_.push_back(part_text(part) + "missing " + file_spelling(foreign_, name) + " " +
                      checkpoint::shape_text(shape));
    return nullptr;
  }
  ForeignTensor& tensor = *found->second;
  if (tensor.shape() != shape || !is_floating(tensor.dtype())) {
    faults_.push_back(part_text(part) + file_spelling(foreign_, name) + " is " +
                      std::string(dtype_name(tensor.dtype())) + checkpoint::shape_text(tensor.shape()) + ", expected " +
                      checkpoint::shape_text(shape));
    return nullptr;
  }
  return &tensor;
}

void Mapper::map_part(const TensorSpec& spec, const std::string& name, size_t part, ForeignModel::Mapping& mapping) {
  const auto parts = static_cast<int64_t>(foreign_.parts.size());
  const auto index = static_cast<int64_t>(part);
  Shape shape = spec.shape();
  ForeignModel::Region region;
  if (name == "decoder.embed_positions.weight") {
    shape[0] += foreign_.unused_position_rows;
    region.tensor_row = foreign_.unused_position_rows;
  }
  const auto stored = foreign_.parts[part].find(name);
  const bool may_be_whole = foreign_.is_vocab_whole || name == kOutputProjection;  // some tools do not split it
  const bool is_table = name == kTokenTable || name == kOutputProjection;
  const bool is_whole =
      may_be_whole && is_table && stored != foreign_.parts[part].end() && stored->second->shape() == shape;
  const bool is_replicated = spec.split == Split::kReplicated || is_whole;
  region.rows = spec.rows;
  if (!is_replicated && spec.split == Split::kRows) {
    shape[0] /= parts;
    region.rows = spec.rows / parts;
    region.row = index * region.rows;
  } else if (!is_replicated) {
    shape[1] /= parts;
    region.column = index * shape[1];
  }
  region.tensor = expect(part, name, shape);
  if (region.tensor == nullptr) return;
  (is_replicated && part > 0 ? mapping.replicas : mapping.regions).push_back(region);
}

// Fused tensors hold K, V, Q per part, in that order; separate ones are named. Ours is q, k, v over all heads.
ForeignModel::Mapping Mapper::map_qkv(const TensorSpec& spec, const std::string& prefix, const std::string& leaf) {
  ForeignModel::Mapping mapping;
  const auto parts = static_cast<int64_t>(foreign_.parts.size());
  const int64_t group = spec.rows / 3;
  const int64_t share = group / parts;
  constexpr std::array<const char*, 3> kNames = {"q_proj.", "k_proj.", "v_proj."};
  constexpr std::array<int64_t, 3> kFusedPlace = {2, 0, 1};  // of q, k, v in K, V, Q
  for (size_t part = 0; part < foreign_.parts.size(); ++part) {
    const bool is_separate = has_separate_qkv(foreign_, foreign_.parts[part], prefix);
    Shape shape = spec.shape();
    shape[0] = is_separate ? share : 3 * share;
    ForeignTensor* fused = is_separate ? nullptr : expect(part, prefix + "qkv_proj." + leaf, shape);
    for (size_t g = 0; g < 3; ++g) {
      ForeignModel::Region region;
      region.tensor = is_separate ? expect(part, prefix + kNames[g] + leaf, shape) : fused;
      if (region.tensor == nullptr) continue;
      region.tensor_row = is_separate ? 0 : kFusedPlace[g] * share;
      region.row = static_cast<int64_t>(g) * group + static_cast<int64_t>(part) * share;
      region.rows = share;
      mapping.regions.push_back(region);
    }
  }
  return mapping;
}

ForeignModel::Mapping Mapper::map_tensor(const TensorSpec& spec) {
  const std::string name = metaseq_name(spec.name);
  if (spec.split == Split::kQkvRows) {
    const size_t leaf = name.rfind('.') + 1;
    return map_qkv(spec, name.substr(0, name.find("qkv_proj.")), name.substr(leaf));
  }
  ForeignModel::Mapping mapping;
  for (size_t part = 0; part < foreign_.parts.size(); ++part) map_part(spec, name, part, mapping);
  return mapping;
}

void Mapper::note_unexpected() {
  for (size_t part = 0; part < foreign_.parts.size(); ++part) {
    for (const auto& [name, tensor] : foreign_.parts[part]) {
      if (!used_.contains(name) && !is_ignored(name)) {
        faults_.push_back(part_text(part) + "unexpected " + file_spelling(foreign_, name) + " " +
                          checkpoint::shape_text(tensor->shape()) + explain(name));
      }
    }
  }
}

Result<std::map<std::string, ForeignModel::Mapping>> Mapper::run() {
  const auto parts = static_cast<int64_t>(foreign_.parts.size());
  const bool is_shared = !foreign_.is_vocab_whole;
  if (!model_spec::is_legal_world(is_shared ? config_ : model_spec::with_padded_vocab(config_, parts), parts)) {
    return refuse(ErrorCode::kDataCorrupt, std::to_string(parts) + " parts, but heads, vocabulary and ffn divide by " +
                                               model_spec::legal_worlds_text(config_) + " only");
  }
  std::map<std::string, ForeignModel::Mapping> mappings;
  for (const TensorSpec& spec : model_spec::opt_tensors(config_)) mappings[spec.name] = map_tensor(spec);
  note_unexpected();
  if (faults_.empty()) return mappings;
  std::string text = "the checkpoint does not hold the tensors that an OPT model of its size has:";
  for (size_t i = 0; i < std::min(faults_.size(), kMappingFaultsShown); ++i) text += "\n  " + faults_[i];
  if (faults_.size() > kMappingFaultsShown) {
    text += "\n  and " + std::to_string(faults_.size() - kMappingFaultsShown) + " more";
  }
  text += other_part_count(foreign_);
  return refuse(ErrorCode::kDataCorrupt, text);
}

}  // namespace optserve::converter
