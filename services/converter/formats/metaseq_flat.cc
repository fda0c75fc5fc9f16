#include "converter/formats/metaseq_flat.h"

#include <algorithm>
#include <map>

#include "converter/formats/flat_layout.h"
#include "converter/formats/metaseq_settings.h"

namespace optserve::converter {
namespace {

using checkpoint::PickleDocument;
using checkpoint::PickleTensor;
using checkpoint::PtFile;
using checkpoint::ValueId;
using checkpoint::ValueKind;

constexpr std::string_view kFlatSuffix = "flat_param_";
constexpr int64_t kTailMax = 4096;  // zeros that a vector in one file may end with when nothing records the padding
constexpr int64_t kDefaultPositions = 2048;
constexpr uint64_t kElementsMax = 1ULL << 40;  // of one tensor; sums of all stay far inside int64

// What one flat tensor holds, and the padding at the end of each shard of it.
struct GroupPlan {
  std::string flat_name;
  std::vector<FlatSlice> slices;
  std::vector<int64_t> padding;  // per shard; empty: nothing records it
};

std::string joined(std::string_view path, std::string_view name) {
  return path.empty() ? std::string(name) : std::string(path) + "." + std::string(name);
}

bool is_flat_name(std::string_view name) {
  const size_t at = name.rfind(kFlatSuffix);
  return at != std::string_view::npos && (at == 0 || name[at - 1] == '.');
}

// The dictionary of weights, which is the whole file where nothing was saved around them.
ValueId model_entry(const PtFile& file) {
  const ValueId root = file.document().root();
  return file.document().find(root, "model").value_or(root);
}

std::optional<PickleTensor> flat_tensor(const PtFile& file, const std::string& name) {
  const auto value = file.document().find(model_entry(file), name);
  if (!value || file.document().kind(*value) != ValueKind::kTensor) return std::nullopt;
  const PickleTensor& tensor = file.document().tensor(*value);
  if (tensor.shape.size() != 1 || !PtFile::readable(tensor)) return std::nullopt;
  return tensor;
}

// The fields of a params entry: names, shapes, numels, padding; Metaseq's own tool takes them by position.
std::optional<std::vector<ValueId>> four_fields(const PickleDocument& doc, ValueId id) {
  std::vector<ValueId> fields;
  if (doc.kind(id) == ValueKind::kDict) {
    for (const auto& [key, value] : doc.pairs(id)) fields.push_back(value);
  } else if (doc.kind(id) == ValueKind::kTuple || doc.kind(id) == ValueKind::kList) {
    fields = doc.items(id);
  }
  if (fields.size() != 4 || doc.kind(fields[0]) != ValueKind::kList || doc.kind(fields[1]) != ValueKind::kList ||
      doc.kind(fields[3]) != ValueKind::kInt || doc.items(fields[0]).size() != doc.items(fields[1]).size()) {
    return std::nullopt;
  }
  return fields;
}

std::optional<std::vector<int64_t>> shape_of(const PickleDocument& doc, ValueId id) {
  if (doc.kind(id) != ValueKind::kTuple && doc.kind(id) != ValueKind::kList) return std::nullopt;
  std::vector<int64_t> shape;
  for (ValueId size : doc.items(id)) {
    if (doc.kind(size) != ValueKind::kInt || doc.integer(size) < 0) return std::nullopt;
    shape.push_back(doc.integer(size));
  }
  const auto elements = checkpoint::checked_elements(shape);
  if (shape.size() > 8 || !elements || *elements > kElementsMax) return std::nullopt;
  return shape;
}

// Reads one file's shard_metadata: flat name to what it holds.
Result<std::map<std::string, GroupPlan>> plans_of(const PtFile& file, ValueId metadata) {
  const PickleDocument& doc = file.document();
  std::map<std::string, GroupPlan> plans;
  const auto list = doc.find(metadata, "param_metadata");
  if (!list || doc.kind(*list) != ValueKind::kList) {
    return checkpoint::corrupt_file(file.name(), "shard_metadata without param_metadata");
  }
  for (ValueId entry : doc.items(*list)) {
    const auto path = doc.find(entry, "fsdp_path");
    const auto params = doc.find(entry, "params");
    if (!path || !params || doc.kind(*path) != ValueKind::kString || doc.kind(*params) != ValueKind::kDict) {
      return checkpoint::corrupt_file(file.name(), "shard_metadata holds a malformed entry");
    }
    for (const auto& [key, value] : doc.pairs(*params)) {
      const auto fields = four_fields(doc, value);
      if (doc.kind(key) != ValueKind::kString || !fields) {
        return checkpoint::corrupt_file(file.name(), "shard_metadata holds a malformed group");
      }
      GroupPlan plan;
      plan.flat_name = joined(doc.text(*path), doc.text(key));
      plan.padding = {doc.integer((*fields)[3])};
      for (size_t i = 0; i < doc.items((*fields)[0]).size(); ++i) {
        const ValueId name = doc.items((*fields)[0])[i];
        const auto shape = shape_of(doc, doc.items((*fields)[1])[i]);
        if (doc.kind(name) != ValueKind::kString || !shape) {
          return checkpoint::corrupt_file(file.name(), "shard_metadata holds a malformed shape");
        }
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
    if (!metadata) return checkpoint::corrupt_file(file.name(), "has no shard_metadata, but other shards have");
    Result<std::map<std::string, GroupPlan>> plans = plans_of(file, *metadata);
    if (!plans.ok()) return plans.refusal();
    for (auto& [name, plan] : plans.value()) {
      if (shard == 0) {
        all[name] = std::move(plan);
      } else if (all.contains(name)) {
        all[name].padding.push_back(plan.padding[0]);
      }
    }
  }
  std::vector<GroupPlan> list;
  for (auto& [name, plan] : all) list.push_back(std::move(plan));
  return list;
}

int64_t stored_elements(const std::vector<PtFile*>& shards, const std::string& name) {
  int64_t total = 0;
  for (PtFile* shard : shards) {
    if (const auto flat = flat_tensor(*shard, name)) total += flat->shape[0];
  }
  return total;
}

// Sizes from the training configuration; without one, from the length of the first layer.
Result<FlatSizes> sizes_by_convention(const std::vector<PtFile*>& shards, int64_t parts) {
  const PtFile& file = *shards[0];
  const PickleDocument& doc = file.document();
  const auto valid = [](const auto& size) { return size && *size > 0 && *size <= (1 << 20); };
  auto hidden = integer_setting(doc, "model", "decoder_embed_dim");
  if (!hidden) {
    hidden = width_of_layer(stored_elements(shards, "decoder.layers.0.flat_param_0"),
                            static_cast<int64_t>(shards.size()), parts);
  }
  if (!valid(hidden)) {
    return checkpoint::corrupt_file(
        file.name(),
        "its weights are flattened, it has no shard_metadata, and neither its configuration nor the length of "
        "its first layer gives decoder_embed_dim");
  }
  const auto ffn = integer_setting(doc, "model", "decoder_ffn_embed_dim").value_or(4 * *hidden);
  const auto positions = integer_setting(doc, "model", "max_target_positions").value_or(kDefaultPositions);
  if (!valid(std::optional(ffn)) || !valid(std::optional(positions)) || *hidden % parts != 0 || ffn % parts != 0) {
    return checkpoint::corrupt_file(file.name(), "width " + std::to_string(*hidden) + ", ffn " + std::to_string(ffn) +
                                                     " and " + std::to_string(positions) +
                                                     " positions are impossible in " + std::to_string(parts) +
                                                     " parts");
  }
  FlatSizes sizes{.hidden = *hidden, .ffn = ffn, .position_rows = positions + 2, .parts = parts};
  return sizes;
}

// Layers that are too small to be flattened on their own; the configuration says how many there are.
std::vector<int64_t> layers_in_root(const PtFile& file) {
  constexpr int64_t kLayersMax = 1024;
  std::vector<int64_t> layers;
  const int64_t count = integer_setting(file.document(), "model", "decoder_layers").value_or(0);
  for (int64_t layer = 0; layer < std::min(count, kLayersMax); ++layer) {
    if (!file.document().find(model_entry(file), "decoder.layers." + std::to_string(layer) + ".flat_param_0")) {
      layers.push_back(layer);
    }
  }
  return layers;
}

// The token table has the rows that the rest leaves; the padding is less than one row.
std::vector<FlatSlice> root_of(const std::vector<PtFile*>& shards, FlatSizes sizes) {
  const std::vector<int64_t> inside = layers_in_root(*shards[0]);
  const int64_t rest = stored_elements(shards, "flat_param_0") - flat_elements(root_slices(sizes, inside));
  sizes.vocab_rows = std::max<int64_t>(0, rest / sizes.hidden);
  return root_slices(sizes, inside);
}

// Metaseq's order of flattening: one vector for each layer, and one for the rest.
Result<std::vector<GroupPlan>> plans_by_convention(const std::vector<PtFile*>& shards, int64_t parts) {
  const PtFile& file = *shards[0];
  const PickleDocument& doc = file.document();
  const Result<FlatSizes> sizes = sizes_by_convention(shards, parts);
  if (!sizes.ok()) return sizes.refusal();
  std::vector<GroupPlan> plans;
  for (const auto& [key, value] : doc.pairs(model_entry(file))) {
    if (doc.kind(key) != ValueKind::kString || !is_flat_name(doc.text(key))) continue;
    const std::string name(doc.text(key));
    if (name == "flat_param_0") {
      plans.push_back({name, root_of(shards, sizes.value()), {}});
    } else if (name.starts_with("decoder.layers.") && name.ends_with(".flat_param_0")) {
      plans.push_back({name, layer_slices(sizes.value(), name.substr(0, name.size() - kFlatSuffix.size() - 1)), {}});
    } else {
      return checkpoint::corrupt_file(file.name(),
                                      "flat tensor '" + name + "' has no known layout, and there is no shard_metadata");
    }
  }
  return plans;
}

// How many elements of each shard are data. What the files record decides, if it adds up; else the arithmetic, if every
// shard has the length that it gives: tools that join shards keep the records of the first one.
std::optional<std::vector<int64_t>> data_of_shards(const GroupPlan& plan, const FlatCut& cut,
                                                   const std::vector<int64_t>& stored) {
  std::vector<int64_t> data(stored.size());
  int64_t total = 0;
  bool is_recorded = plan.padding.size() == stored.size();
  for (size_t i = 0; is_recorded && i < stored.size(); ++i) {
    is_recorded = plan.padding[i] >= 0 && plan.padding[i] <= stored[i];
    data[i] = is_recorded ? stored[i] - plan.padding[i] : 0;
    total += data[i];
  }
  if (is_recorded && total == cut.elements) return data;
  for (size_t i = 0; i < stored.size(); ++i) data[i] = cut.filled(static_cast<int64_t>(i));
  if (std::all_of(stored.begin(), stored.end(), [&](int64_t length) { return length == cut.chunk(); })) return data;
  const bool is_joined =
      stored.size() == 1 && plan.padding.empty() && stored[0] > cut.elements && stored[0] - cut.elements <= kTailMax;
  return is_joined ? std::optional(std::vector{cut.elements}) : std::nullopt;
}

// The vector behind one plan, its length checked against the slices.
Result<std::shared_ptr<const FlatGroup>> join(const GroupPlan& plan, const std::vector<PtFile*>& shards) {
  auto group = std::make_shared<FlatGroup>();
  std::vector<int64_t> stored;
  int64_t total = 0;
  for (PtFile* shard : shards) {
    const auto flat = flat_tensor(*shard, plan.flat_name);
    if (!flat) {
      return checkpoint::corrupt_file(shard->name(),
                                      "flat tensor '" + plan.flat_name + "' is missing or not one vector");
    }
    if (!stored.empty() && shard->dtype(*flat) != group->shards[0].file->dtype(group->shards[0].tensor)) {
      return checkpoint::corrupt_file(shard->name(),
                                      "flat tensor '" + plan.flat_name + "' has another type than in the first shard");
    }
    stored.push_back(flat->shape[0]);
    total += flat->shape[0];
    group->shards.push_back({shard, *flat, 0});
  }
  const FlatCut cut{flat_elements(plan.slices), static_cast<int64_t>(shards.size())};
  const auto data = data_of_shards(plan, cut, stored);
  if (!data) {
    return checkpoint::corrupt_file(
        shards[0]->name(), "flat tensor '" + plan.flat_name + "' holds " + std::to_string(total) + " elements in " +
                               std::to_string(cut.shards) + " shards, its tensors need " +
                               std::to_string(cut.elements) + ", " + std::to_string(cut.chunk()) + " in each shard");
  }
  for (size_t i = 0; i < data->size(); ++i) group->shards[i].elements = (*data)[i];
  return std::shared_ptr<const FlatGroup>(std::move(group));
}

}  // namespace

bool is_flattened(const PtFile& file) {
  for (const auto& [key, value] : file.document().pairs(model_entry(file))) {
    if (file.document().kind(key) == ValueKind::kString && is_flat_name(file.document().text(key))) return true;
  }
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
    for (const FlatSlice& slice : plan.slices) {
      const auto elements = static_cast<int64_t>(*checkpoint::checked_elements(slice.shape));
      if (!part.emplace(slice.name, tensor_of_group(group.value(), begin, slice.shape)).second) {
        return checkpoint::corrupt_file(shards[0]->name(), "tensor '" + slice.name + "' occurs twice");
      }
      begin += elements;
    }
  }
  return part;
}

}  // namespace optserve::converter
