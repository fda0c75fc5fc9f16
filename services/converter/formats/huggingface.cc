#include "converter/formats/huggingface.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/hex.h"
#include "base/sha256.h"
#include "converter/formats/huggingface_config.h"
#include "converter/formats/huggingface_names.h"

namespace optserve::converter {
namespace {

using checkpoint::PickleDocument;
using checkpoint::ValueId;
using checkpoint::ValueKind;

constexpr uint64_t kConfigBytesMax = 1 << 20;
constexpr const char* kTableName = "decoder.embed_tokens.weight";
constexpr const char* kHeadName = "decoder.output_projection.weight";

using Places = std::map<std::string, std::string>;  // tensor to the file that holds it

// The tensors of a folder as they are found.
class Collector {
 public:
  explicit Collector(ForeignCheckpoint& foreign) : foreign_(foreign) {}

  Status add(const std::string& file, const std::string& name, std::unique_ptr<ForeignTensor> tensor) {
    places_[name] = std::filesystem::path(file).filename().string();
    if (Status status = check_kind_of_tensor(file, name); !status.ok()) return status;
    const std::string metaseq = metaseq_spelling(name);
    if (is_head_of_another_task(metaseq)) {
      foreign_.warnings.push_back(name + " is left out: it belongs to another task than the model's text");
      return ok_status();
    }
    if (tensor->elements() == 0) empty_.push_back(name);
    const auto [at, is_new] = foreign_.file_names.emplace(metaseq, name);
    if (!is_new) {
      return refuse(ErrorCode::kDataCorrupt, file + ": " + name + " is there twice" +
                                                 (at->second == name ? "" : ": " + at->second + " is the same tensor"));
    }
    foreign_.parts[0].emplace(metaseq, std::move(tensor));
    return ok_status();
  }

  // ZeRO's third stage leaves nothing of a weight on a rank but a tensor without elements.
  Status check_empty(const std::string& folder) const {
    if (empty_.empty()) return ok_status();
    return refuse(ErrorCode::kDataCorrupt,
                  folder + ": " + std::to_string(empty_.size()) + " tensors are empty, " + empty_[0] +
                      " the first: the model was probably saved under DeepSpeed ZeRO-3 without gathering its weights; "
                      "gather them (zero_to_fp32.py, or stage3_gather_16bit_weights_on_model_save) and save again");
  }

  const Places& places() const { return places_; }

 private:
  ForeignCheckpoint& foreign_;
  Places places_;
  std::vector<std::string> empty_;
};

// A header holds no checksums of the weights, so the time of their last change stands in for them.
std::string index_digest(const checkpoint::InputFile& file, const checkpoint::SafetensorsHeader& header) {
  std::string index(header.data_begin, '\0');
  file.read_at(0, std::as_writable_bytes(std::span(index)));
  return to_hex(sha256(index + std::to_string(file.modified_ns())));
}

Status add_safetensors(const std::string& path, ForeignCheckpoint& foreign, Collector& collector) {
  Result<std::unique_ptr<checkpoint::InputFile>> file = checkpoint::InputFile::open(path);
  if (!file.ok()) return file.refusal();
  const Result<checkpoint::SafetensorsHeader> header = checkpoint::read_safetensors(*file.value());
  if (!header.ok()) return header.refusal();
  for (const checkpoint::StoredTensor& tensor : header.value().tensors) {
    if (Status status = collector.add(path, tensor.name, tensor_of_safetensors(*file.value(), tensor)); !status.ok()) {
      return status;
    }
  }
  foreign.files.push_back({std::filesystem::path(path).filename().string(), file.value()->size(),
                           index_digest(*file.value(), header.value())});
  foreign.plain_files.push_back(std::move(file).value());
  return ok_status();
}

bool holds_tensors(const PickleDocument& doc, ValueId dict) {
  return std::ranges::any_of(doc.pairs(dict),
                             [&](const auto& pair) { return doc.kind(pair.second) == ValueKind::kTensor; });
}

// The dictionary of weights: the file's root, or what a trainer has put it into.
ValueId weights_of(const PickleDocument& doc) {
  if (holds_tensors(doc, doc.root())) return doc.root();
  for (const char* key : {"state_dict", "model_state_dict", "module", "model"}) {
    if (const auto inner = doc.find(doc.root(), key)) {
      if (doc.kind(*inner) == ValueKind::kDict && holds_tensors(doc, *inner)) return *inner;
    }
  }
  return doc.root();
}

std::string kind_text(const PickleDocument& doc, ValueId value) {
  switch (doc.kind(value)) {
    case ValueKind::kNone:
    case ValueKind::kBool:
    case ValueKind::kInt:
    case ValueKind::kFloat:
      return "a number";
    case ValueKind::kString:
      return "a text";
    case ValueKind::kTuple:
    case ValueKind::kList:
      return "a list";
    case ValueKind::kDict:
      return "a dictionary";
    case ValueKind::kStorage:
    case ValueKind::kTensor:
      return "a tensor with unusual strides";
    case ValueKind::kGlobal:
    case ValueKind::kOpaque:
      break;
  }
  return "of the class " + std::string(doc.text(value));
}

Status add_entries(checkpoint::PtFile& file, ValueId dict, ForeignCheckpoint& foreign, Collector& collector) {
  const PickleDocument& doc = file.document();
  for (const auto& [key, value] : doc.pairs(dict)) {
    if (doc.kind(key) != ValueKind::kString || doc.text(key).size() > checkpoint::kStoredNameMax) {
      return checkpoint::corrupt_file(file.name(), "holds a key that is not the name of a tensor");
    }
    const std::string name(doc.text(key));
    if (doc.kind(value) != ValueKind::kTensor) {
      foreign.warnings.push_back("'" + name + "' is left out: it is " + kind_text(doc, value) + ", not a tensor");
      continue;
    }
    if (!checkpoint::PtFile::readable(doc.tensor(value))) {
      return refuse(ErrorCode::kUnsupportedFormat, file.name() + ": " + name + " has strides that are not supported");
    }
    if (Status status = collector.add(file.name(), name, tensor_of_pt(file, doc.tensor(value))); !status.ok()) {
      return status;
    }
  }
  return ok_status();
}

Status add_bin(const std::string& path, ForeignCheckpoint& foreign, Collector& collector) {
  Result<std::unique_ptr<checkpoint::PtFile>> opened = checkpoint::PtFile::open(path);
  if (!opened.ok()) return opened.refusal();
  checkpoint::PtFile& file = *opened.value();
  const PickleDocument& doc = file.document();
  if (doc.kind(doc.root()) != ValueKind::kDict) {
    return refuse(ErrorCode::kUnsupportedFormat, path + ": expected a dictionary of tensors, found " +
                                                     kind_text(doc, doc.root()) + "; save the model's state_dict()");
  }
  const ValueId weights = weights_of(doc);
  if (!holds_tensors(doc, weights)) {
    return refuse(ErrorCode::kUnsupportedFormat, path + ": its dictionary holds no tensors");
  }
  if (Status status = add_entries(file, weights, foreign, collector); !status.ok()) return status;
  foreign.files.push_back(
      {std::filesystem::path(path).filename().string(), file.source().size(), file.directory_sha256()});
  foreign.pt_files.push_back(std::move(opened).value());
  return ok_status();
}

// Writers of safetensors files keep one name of two tensors that share memory, and indices may list the other one.
bool is_tied(const std::string& name, const Places& known) {
  const std::string metaseq = metaseq_spelling(name);
  if (metaseq != kTableName && metaseq != kHeadName) return false;
  const std::string twin = metaseq == kHeadName ? kTableName : kHeadName;
  return std::ranges::any_of(known, [&](const auto& entry) { return metaseq_spelling(entry.first) == twin; });
}

// Every tensor must be in the file that the index names.
Status check_index(const std::string& folder, const HuggingFaceFiles& files, const Places& places) {
  if (files.index.empty()) return ok_status();
  const auto fault = [&](const std::string& what) {
    return refuse(ErrorCode::kDataCorrupt, folder + ": the index and the files contradict each other: " + what);
  };
  for (const auto& [tensor, file] : files.index) {
    const auto found = places.find(tensor);
    if (found == places.end() && is_tied(tensor, places)) continue;
    if (found == places.end()) return fault(tensor + " is not in " + file);
    if (found->second != file) return fault(tensor + " is in " + found->second + ", not in " + file);
  }
  for (const auto& [tensor, file] : places) {
    if (!files.index.contains(tensor) && !is_tied(tensor, files.index)) {
      return fault(tensor + " of " + file + " is not in the index");
    }
  }
  return ok_status();
}

// If the head is the token table, the tensor may have been stored under the head's name only.
void settle_table(ForeignCheckpoint& foreign) {
  ForeignPart& part = foreign.parts[0];
  if (!foreign.hints.tied_output.value_or(true) || part.contains(kTableName) || !part.contains(kHeadName)) return;
  part[kTableName] = std::move(part[kHeadName]);
  part.erase(kHeadName);
  foreign.file_names[kTableName] = foreign.file_names[kHeadName];
  foreign.file_names.erase(kHeadName);
}

Status read_settings(const std::string& folder, ForeignCheckpoint& foreign) {
  const std::string config = folder + "/config.json", generation = folder + "/generation_config.json";
  const Result<std::string> text = checkpoint::read_text_file(config, kConfigBytesMax);
  if (!text.ok()) return text.refusal();
  if (Status status = parse_huggingface_config(text.value(), config, foreign.hints); !status.ok()) return status;
  std::error_code ignored;
  if (std::filesystem::exists(folder + "/adapter_config.json", ignored)) {
    foreign.warnings.push_back(folder +
                               ": the adapter of adapter_config.json is not applied; merge it first if the "
                               "model is meant to have it");
  }
  if (!std::filesystem::exists(generation, ignored)) return ok_status();
  const Result<std::string> more = checkpoint::read_text_file(generation, kConfigBytesMax);
  if (!more.ok()) return more.refusal();
  return parse_generation_config(more.value(), generation, foreign.hints);
}

}  // namespace

Result<ForeignCheckpoint> open_huggingface(const std::string& folder, const HuggingFaceFiles& files) {
  ForeignCheckpoint foreign;
  foreign.kind = "huggingface";
  foreign.parts.emplace_back();
  if (Status status = read_settings(folder, foreign); !status.ok()) return status.refusal();
  Collector collector(foreign);
  for (const std::string& name : files.names) {
    const std::string path = folder + "/" + name;
    const Status status =
        files.is_safetensors ? add_safetensors(path, foreign, collector) : add_bin(path, foreign, collector);
    if (!status.ok()) return status.refusal();
  }
  if (Status status = check_index(folder, files, collector.places()); !status.ok()) return status.refusal();
  if (Status status = collector.check_empty(folder); !status.ok()) return status.refusal();
  settle_table(foreign);
  foreign.layout = std::to_string(files.names.size()) + (files.is_safetensors ? " safetensors" : " pytorch .bin") +
                   (files.names.size() == 1 ? " file" : " files");
  return foreign;
}

}  // namespace optserve::converter
