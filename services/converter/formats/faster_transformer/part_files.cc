#include "converter/formats/faster_transformer/part_files.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>

namespace optserve::converter {
namespace {

using checkpoint::PickleDocument;
using checkpoint::PickleTensor;
using checkpoint::PtFile;
using checkpoint::ValueId;
using checkpoint::ValueKind;

constexpr size_t kGroups = 12;  // of one tensor for each layer
constexpr size_t kTail = 5;     // after the groups: final norm's two, positions, token table, output projection

enum class Form : uint8_t { kVector, kMatrix, kQkvMatrix, kQkvVector };  // as FasterTransformer has them: [in, out]
struct Group {
  std::string_view leaf;  // Metaseq's name; "qkv" is replaced by the three
  Form form;
};
constexpr std::array<Group, kGroups> kLayout = {{{"self_attn_layer_norm.weight", Form::kVector},
                                                 {"self_attn_layer_norm.bias", Form::kVector},
                                                 {"weight", Form::kQkvMatrix},
                                                 {"bias", Form::kQkvVector},
                                                 {"self_attn.out_proj.weight", Form::kMatrix},
                                                 {"self_attn.out_proj.bias", Form::kVector},
                                                 {"final_layer_norm.weight", Form::kVector},
                                                 {"final_layer_norm.bias", Form::kVector},
                                                 {"fc1.weight", Form::kMatrix},
                                                 {"fc1.bias", Form::kVector},
                                                 {"fc2.weight", Form::kMatrix},
                                                 {"fc2.bias", Form::kVector}}};
constexpr size_t kQkvWeightGroup = 2;

std::optional<ValueId> list_of(const PtFile& file, std::string_view name) {
  const PickleDocument& doc = file.document();
  if (doc.kind(doc.root()) != ValueKind::kDict) return std::nullopt;
  const auto list = doc.find(doc.root(), name);
  return list && doc.kind(*list) == ValueKind::kList ? list : std::nullopt;
}

bool is_same_view(const PickleTensor& a, const PickleTensor& b) {
  return a.storage == b.storage && a.offset == b.offset && a.shape == b.shape && a.stride == b.stride;
}

// One part's list as tensors of Metaseq's names and [out, in] shapes: views of the stored elements in another order.
class PartReader {
 public:
  explicit PartReader(PtFile& file) : file_(file) {}

  Status load() {
    if (Status status = read_list(); !status.ok()) return status;
    const size_t layers = tensors_.size() / kGroups;  // the tail is shorter than a layer
    for (size_t group = 0; group < kGroups; ++group) {
      for (size_t layer = 0; layer < layers; ++layer) {
        if (Status status = add_entry(layer, group, tensors_[group * layers + layer]); !status.ok()) return status;
      }
    }
    constexpr std::array<const char*, kTail> kNames = {"decoder.layer_norm.weight", "decoder.layer_norm.bias",
                                                       "decoder.embed_positions.weight", "decoder.embed_tokens.weight",
                                                       "decoder.output_projection.weight"};
    const size_t tail = tensors_.size() - kTail;
    for (size_t i = 0; i < kTail; ++i) {
      const PickleTensor& tensor = tensors_[tail + i];
      if (i + 1 == kTail && is_same_view(tensor, tensors_[tail + i - 1])) continue;  // the head is the token table
      if (!PtFile::readable(tensor)) return misshapen(tail + i);
      part_.emplace(kNames[i], tensor_of_pt(file_, tensor));
    }
    return ok_status();
  }

  // How many parts the layer widths are made for; valid after load().
  int64_t group_size() const {
    const PickleTensor& qkv = tensors_[kQkvWeightGroup * (tensors_.size() / kGroups)];
    return qkv.shape[2] > 0 ? qkv.shape[0] / qkv.shape[2] : 0;
  }
  ForeignPart take() { return std::move(part_); }

 private:
  Status read_list() {
    const auto list = list_of(file_, "weights");
    if (!list) return checkpoint::corrupt_file(file_.name(), "holds no list 'weights', but other parts do");
    if (list_of(file_, "int8_weights") || list_of(file_, "int8_scales")) return quantised();
    const PickleDocument& doc = file_.document();
    const std::vector<ValueId>& items = doc.items(*list);
    if (items.size() < kGroups + kTail || (items.size() - kTail) % kGroups != 0) {
      return checkpoint::corrupt_file(file_.name(), "its list holds " + std::to_string(items.size()) +
                                                        " tensors, expected 12 for each layer and 5 more");
    }
    for (ValueId item : items) {
      if (doc.kind(item) != ValueKind::kTensor) {
        return checkpoint::corrupt_file(file_.name(),
                                        "entry " + std::to_string(tensors_.size()) + " of its list is not a tensor");
      }
      const PickleTensor& tensor = doc.tensor(item);
      if (std::find(tensor.shape.begin(), tensor.shape.end(), 0) != tensor.shape.end()) return quantised();
      tensors_.push_back(tensor);
    }
    return ok_status();
  }

  Refusal quantised() const {
    return refuse(
        ErrorCode::kUnsupportedFormat,
        file_.name() +
            ": is quantised: the large matrices are missing from its list, and FasterTransformer lays out int8 "
            "weights for one kind of GPU; convert the checkpoint that it was made from");
  }

  Refusal misshapen(size_t entry) const {
    return checkpoint::corrupt_file(file_.name(), "entry " + std::to_string(entry) + " of its list is " +
                                                      checkpoint::shape_text(tensors_[entry].shape) +
                                                      ", which is not a shape that this entry can have");
  }

  Status add_entry(size_t layer, size_t group, const PickleTensor& tensor) {
    const std::string prefix = "decoder.layers." + std::to_string(layer) + ".";
    const Group& entry = kLayout[group];
    const size_t index = group * (tensors_.size() / kGroups) + layer;
    constexpr std::array<size_t, 4> kAxes = {1, 2, 3, 2};
    if (tensor.shape.size() != kAxes[static_cast<size_t>(entry.form)]) return misshapen(index);
    switch (entry.form) {
      case Form::kVector:
        return add(prefix + std::string(entry.leaf), tensor, index);
      case Form::kMatrix:
        return add(prefix + std::string(entry.leaf), reordered(tensor, 0, {1, 0}), index);
      case Form::kQkvMatrix:
      case Form::kQkvVector:
        break;
    }
    const bool is_matrix = entry.form == Form::kQkvMatrix;
    const size_t third = is_matrix ? 1 : 0;  // the axis of q, k, v
    if (tensor.shape[third] != 3) return misshapen(index);
    for (size_t i = 0; i < 3; ++i) {
      const int64_t offset = static_cast<int64_t>(i) * tensor.stride[third];
      const std::vector<size_t> axes = is_matrix ? std::vector<size_t>{2, 0} : std::vector<size_t>{1};
      const std::string name = prefix + "self_attn." + "qkv"[i] + "_proj." + std::string(entry.leaf);
      if (Status status = add(name, reordered(tensor, offset, axes), index); !status.ok()) return status;
    }
    return ok_status();
  }

  static PickleTensor reordered(const PickleTensor& tensor, int64_t offset, const std::vector<size_t>& axes) {
    PickleTensor view{tensor.storage, tensor.offset + offset, {}, {}};
    for (size_t axis : axes) {
      view.shape.push_back(tensor.shape[axis]);
      view.stride.push_back(tensor.stride[axis]);
    }
    return view;
  }

  Status add(const std::string& name, const PickleTensor& view, size_t index) {
    if (!PtFile::readable(view)) return misshapen(index);
    part_.emplace(name, tensor_of_pt(file_, view));
    return ok_status();
  }

  PtFile& file_;
  std::vector<PickleTensor> tensors_;
  ForeignPart part_;
};

Result<std::vector<std::string>> sort_parts(std::vector<std::string> paths) {
  if (paths.size() == 1 && faster_transformer_part(paths[0]) < 0) return paths;
  std::sort(paths.begin(), paths.end(), [](const std::string& a, const std::string& b) {
    return std::pair(faster_transformer_part(a), a) < std::pair(faster_transformer_part(b), b);
  });
  for (size_t i = 0; i < paths.size(); ++i) {
    if (faster_transformer_part(paths[i]) != static_cast<int64_t>(i)) {
      return refuse(ErrorCode::kBadRequest, paths[i] + ": expected part " + std::to_string(i) +
                                                " here; the set of files has a gap or a duplicate");
    }
  }
  return paths;
}

}  // namespace

bool is_faster_transformer(const PtFile& file) { return list_of(file, "weights").has_value(); }

int64_t faster_transformer_part(const std::string& path) {
  const std::string name = std::filesystem::path(path).stem().string();
  const size_t begin = name.find_last_not_of("0123456789") + 1;
  int64_t number = -1;
  const auto [end, error] = std::from_chars(name.data() + begin, name.data() + name.size(), number);
  return error == std::errc() && path.ends_with(".pt") ? number : -1;
}

Result<ForeignCheckpoint> open_faster_transformer(const std::vector<std::string>& paths) {
  const Result<std::vector<std::string>> sorted = sort_parts(paths);
  if (!sorted.ok()) return sorted.refusal();
  ForeignCheckpoint foreign;
  foreign.kind = "faster_transformer";
  foreign.unused_position_rows = 0;
  foreign.is_vocab_whole = true;
  const auto parts = static_cast<int64_t>(sorted.value().size());
  for (const std::string& path : sorted.value()) {
    Result<std::unique_ptr<PtFile>> file = PtFile::open(path);
    if (!file.ok()) return file.refusal();
    PartReader reader(*file.value());
    if (Status status = reader.load(); !status.ok()) return status.refusal();
    if (reader.group_size() != parts) {
      return refuse(ErrorCode::kBadRequest, path + ": its widths are those of one part of " +
                                                std::to_string(reader.group_size()) + ", found " +
                                                std::to_string(parts));
    }
    foreign.parts.push_back(reader.take());
    foreign.files.push_back({std::filesystem::path(path).filename().string(), file.value()->source().size(),
                             file.value()->directory_sha256()});
    foreign.pt_files.push_back(std::move(file).value());
  }
  foreign.layout = std::to_string(parts) + (parts == 1 ? " part" : " parts");
  return foreign;
}

}  // namespace optserve::converter
