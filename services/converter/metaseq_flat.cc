// Weights that FSDP flattened into one vector per wrapped module, possibly cut over shards.
#include <algorithm>
#include <map>

#include "converter/metaseq_source.h"

namespace optserve::converter {
namespace {

using checkpoint::PickleDocument;
using checkpoint::PickleTensor;
using checkpoint::PtFile;
using checkpoint::ValueId;
using checkpoint::ValueKind;

constexpr std::string_view kFlatSuffix = "flat_param_";
constexpr int64_t kTailMax = 4096;  // zero elements that a group may end with when nothing records the padding

struct Slice {
  std::string name;
  std::vector<int64_t> shape;
};
// What one flat tensor holds, and the padding at the end of each shard of it.
struct GroupPlan {
  std::string flat_name;
  std::vector<Slice> slices;
  std::vector<int64_t> padding;  // per shard; empty: unknown, all at the end
};

Refusal bad(const PtFile& file, const std::string& what) {
  return refuse(ErrorCode::kDataCorrupt, file.name() + ": " + what);
}

std::string joined(std::string_view path, std::string_view name) {
  return path.empty() ? std::string(name) : std::string(path) + "." + std::string(name);
}

bool is_flat_name(std::string_view name) {
  const size_t at = name.rfind(kFlatSuffix);
  return at != std::string_view::npos && (at == 0 || name[at - 1] == '.');
}

ValueId model_of(const PtFile& file) { return *file.document().find(file.document().root(), "model"); }

std::optional<PickleTensor> flat_tensor(const PtFile& file, const std::string& name) {
  const auto value = file.document().find(model_of(file), name);
  if (!value || file.document().kind(*value) != ValueKind::kTensor) return std::nullopt;
  const PickleTensor& tensor = file.document().tensor(*value);
  if (tensor.shape.size() != 1 || !PtFile::readable(tensor)) return std::nullopt;
  return tensor;
}

// The fields of a params entry: names, shapes, numels, padding; Metaseq's own tool takes them by position.
std::optional<std::vector<ValueId>> four_fields(const PickleDocument& doc, ValueId id) {
  std::vector<ValueId> fields;
  if (doc.kind(id) == ValueKind::kDict)
    for (const auto& [key, value] : doc.pairs(id)) fields.push_back(value);
  else if (doc.kind(id) == ValueKind::kTuple || doc.kind(id) == ValueKind::kList)
    fields = doc.items(id);
  if (fields.size() != 4 || doc.kind(fields[0]) != ValueKind::kList || doc.kind(fields[1]) != ValueKind::kList ||
      doc.kind(fields[3]) != ValueKind::kInt || doc.items(fields[0]).size() != doc.items(fields[1]).size())
    return std::nullopt;
  return fields;
}

std::optional<std::vector<int64_t>> shape_of(const PickleDocument& doc, ValueId id) {
  if (doc.kind(id) != ValueKind::kTuple && doc.kind(id) != ValueKind::kList) return std::nullopt;
  std::vector<int64_t> shape;
  for (ValueId size : doc.items(id)) {
    if (doc.kind(size) != ValueKind::kInt || doc.integer(size) < 0) return std::nullopt;
    shape.push_back(doc.integer(size));
  }
  if (shape.size() > 8 || !checkpoint::checked_elements(shape)) return std::nullopt;
  return shape;
}

// Reads one file's shard_metadata: flat name to what it holds.
Result<std::map<std::string, GroupPlan>> plans_of(const PtFile& file, ValueId metadata) {
  const PickleDocument& doc = file.document();
  std::map<std::string, GroupPlan> plans;
  const auto list = doc.find(metadata, "param_metadata");
  if (!list || doc.kind(*list) != ValueKind::kList) return bad(file, "shard_metadata without param_metadata");
  for (ValueId entry : doc.items(*list)) {
    const auto path = doc.find(entry, "fsdp_path");
    const auto params = doc.find(entry, "params");
    if (!path || !params || doc.kind(*path) != ValueKind::kString || doc.kind(*params) != ValueKind::kDict)
      return bad(file, "shard_metadata holds a malformed entry");
    for (const auto& [key, value] : doc.pairs(*params)) {
      const auto fields = four_fields(doc, value);
      if (doc.kind(key) != ValueKind::kString || !fields) return bad(file, "shard_metadata holds a malformed group");
      GroupPlan plan;
      plan.flat_name = joined(doc.text(*path), doc.text(key));
      plan.padding = {doc.integer((*fields)[3])};
      for (size_t i = 0; i < doc.items((*fields)[0]).size(); ++i) {
        const ValueId name = doc.items((*fields)[0])[i];
        const auto shape = shape_of(doc, doc.items((*fields)[1])[i]);
        if (doc.kind(name) != ValueKind::kString || !shape) return bad(file, "shard_metadata holds a malformed shape");
        plan.slices.push_back({joined(doc.text(*path), doc.text(name)), *shape});
      }
      plans[plan.flat_name] = std::move(plan);
    }
  }
  return plans;
}

// Joins the plans of all shards: the slices of the first, the padding of each.
Result<std::vector<GroupPlan>> plans_from_metadata(const std::vector<PtFile*>& shards) {
  std::map<std::string, GroupPlan> all;
  for (size_t shard = 0; shard < shards.size(); ++shard) {
    const PtFile& file = *shards[shard];
    const auto metadata = file.document().find(file.document().root(), "shard_metadata");
    if (!metadata) return bad(file, "has no shard_metadata, but other shards have");
    Result<std::map<std::string, GroupPlan>> plans = plans_of(file, *metadata);
    if (!plans.ok()) return plans.refusal();
    for (auto& [name, plan] : plans.value()) {
      if (shard == 0)
        all[name] = std::move(plan);
      else if (all.contains(name))
        all[name].padding.push_back(plan.padding[0]);
    }
  }
  std::vector<GroupPlan> list;
  for (auto& [name, plan] : all) list.push_back(std::move(plan));
  return list;
}

std::vector<Slice> layer_slices(const std::string& prefix, int64_t h, int64_t ffn, int64_t parts) {
  return {{prefix + "self_attn.qkv_proj.weight", {3 * h / parts, h}},
          {prefix + "self_attn.qkv_proj.bias", {3 * h / parts}},
          {prefix + "self_attn.out_proj.weight", {h, h / parts}},
          {prefix + "self_attn.out_proj.bias", {h}},
          {prefix + "self_attn_layer_norm.weight", {h}},
          {prefix + "self_attn_layer_norm.bias", {h}},
          {prefix + "fc1.weight", {ffn / parts, h}},
          {prefix + "fc1.bias", {ffn / parts}},
          {prefix + "fc2.weight", {h, ffn / parts}},
          {prefix + "fc2.bias", {h}},
          {prefix + "final_layer_norm.weight", {h}},
          {prefix + "final_layer_norm.bias", {h}}};
}

// Metaseq's order of flattening, with sizes from the training configuration.
Result<std::vector<GroupPlan>> plans_by_convention(const std::vector<PtFile*>& shards, int64_t parts) {
  const PtFile& file = *shards[0];
  const PickleDocument& doc = file.document();
  const auto h = integer_setting(doc, "model", "decoder_embed_dim");
  const auto ffn = integer_setting(doc, "model", "decoder_ffn_embed_dim");
  const auto layers = integer_setting(doc, "model", "decoder_layers");
  const auto positions = integer_setting(doc, "model", "max_target_positions");
  const auto valid = [](const auto& size) { return size && *size > 0 && *size <= (1 << 20); };
  if (!valid(h) || !valid(ffn) || !valid(layers) || !valid(positions) || *h % parts != 0 || *ffn % parts != 0)
    return bad(file,
               "its weights are flattened, it has no shard_metadata, and its configuration does not give "
               "decoder_embed_dim, decoder_ffn_embed_dim, decoder_layers and max_target_positions");
  std::vector<GroupPlan> plans;
  for (const auto& [key, value] : doc.pairs(model_of(file))) {
    if (doc.kind(key) != ValueKind::kString || !is_flat_name(doc.text(key))) continue;
    const std::string name(doc.text(key));
    GroupPlan plan{name, {}, {}};
    if (name == "flat_param_0") {
      int64_t total = 0;
      for (PtFile* shard : shards)
        if (const auto flat = flat_tensor(*shard, name)) total += flat->shape[0];
      const int64_t rows = (total - 2 * *h) / *h - (*positions + 2);  // padding is less than one row
      plan.slices = {{"decoder.embed_tokens.weight", {std::max<int64_t>(rows, 0), *h}},
                     {"decoder.embed_positions.weight", {*positions + 2, *h}},
                     {"decoder.layer_norm.weight", {*h}},
                     {"decoder.layer_norm.bias", {*h}}};
    } else if (name.starts_with("decoder.layers.") && name.ends_with(".flat_param_0")) {
      plan.slices = layer_slices(name.substr(0, name.size() - kFlatSuffix.size() - 1), *h, *ffn, parts);
    } else {
      return bad(file, "flat tensor '" + name + "' is of no known layout, and there is no shard_metadata");
    }
    plans.push_back(std::move(plan));
  }
  return plans;
}

// The vector behind one plan, its length checked against the slices.
Result<std::shared_ptr<const FlatGroup>> join(const GroupPlan& plan, const std::vector<PtFile*>& shards) {
  auto group = std::make_shared<FlatGroup>();
  int64_t expected = 0;
  for (const Slice& slice : plan.slices) expected += static_cast<int64_t>(*checkpoint::checked_elements(slice.shape));
  int64_t left = expected;
  for (size_t i = 0; i < shards.size(); ++i) {
    const auto flat = flat_tensor(*shards[i], plan.flat_name);
    if (!flat) return bad(*shards[i], "flat tensor '" + plan.flat_name + "' is missing or not one vector");
    if (i > 0 && shards[i]->dtype(*flat) != group->shards[0].file->dtype(group->shards[0].tensor))
      return bad(*shards[i], "flat tensor '" + plan.flat_name + "' has another type than in the first shard");
    int64_t elements = flat->shape[0];
    if (i < plan.padding.size())
      elements -= plan.padding[i];
    else if (plan.padding.empty())
      elements = std::min(elements, left);
    if (elements < 0 || elements > flat->shape[0])
      return bad(*shards[i], "flat tensor '" + plan.flat_name + "' has " + std::to_string(flat->shape[0]) +
                                 " elements and claims impossible padding");
    left -= elements;
    group->shards.push_back({shards[i], *flat, elements});
  }
  int64_t stored = 0;
  for (const FlatShard& shard : group->shards) stored += shard.tensor.shape[0];
  const bool has_long_tail = plan.padding.empty() && stored - expected > kTailMax;
  if (group->elements() != expected || has_long_tail)
    return bad(*shards[0], "flat tensor '" + plan.flat_name + "' holds " +
                               std::to_string(has_long_tail ? stored : group->elements()) +
                               " elements, its tensors need " + std::to_string(expected));
  return std::shared_ptr<const FlatGroup>(std::move(group));
}

}  // namespace

bool is_flattened(const PtFile& file) {
  for (const auto& [key, value] : file.document().pairs(model_of(file)))
    if (file.document().kind(key) == ValueKind::kString && is_flat_name(file.document().text(key))) return true;
  return false;
}

Result<ForeignPart> unflatten(const std::vector<PtFile*>& shards, int64_t parts) {
  const PickleDocument& first = shards[0]->document();
  const bool has_metadata = first.find(first.root(), "shard_metadata").has_value();
  Result<std::vector<GroupPlan>> plans =
      has_metadata ? plans_from_metadata(shards) : plans_by_convention(shards, parts);
  if (!plans.ok()) return plans.refusal();
  ForeignPart part;
  for (const GroupPlan& plan : plans.value()) {
    Result<std::shared_ptr<const FlatGroup>> group = join(plan, shards);
    if (!group.ok()) return group.refusal();
    int64_t begin = 0;
    for (const Slice& slice : plan.slices) {
      const auto elements = static_cast<int64_t>(*checkpoint::checked_elements(slice.shape));
      if (!part.emplace(slice.name, tensor_of_group(group.value(), begin, slice.shape)).second)
        return bad(*shards[0], "tensor '" + slice.name + "' occurs twice");
      begin += elements;
    }
  }
  return part;
}

}  // namespace optserve::converter
