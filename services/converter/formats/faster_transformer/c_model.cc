#include "converter/formats/faster_transformer/c_model.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <map>

#include "base/check.h"
#include "base/format_names.h"
#include "base/hex.h"
#include "base/sha256.h"

namespace optserve::converter {
namespace {

namespace fs = std::filesystem;
using checkpoint::InputFile;

constexpr uint64_t kIniBytesMax = 1 << 20;
constexpr int64_t kPartsMax = 64;
constexpr int64_t kSizeMax = 1 << 20;

using Ini = std::map<std::string, std::string>;

std::string trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r") + 1 - begin));
}

// The keys of all sections; FasterTransformer writes one, [gpt].
Ini parse_ini(std::string_view text) {
  Ini values;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string line = trimmed(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const size_t equals = line.find('=');
    if (line.empty() || line[0] == '#' || line[0] == ';' || line[0] == '[' || equals == std::string::npos) continue;
    values[trimmed(std::string_view(line).substr(0, equals))] = trimmed(std::string_view(line).substr(equals + 1));
  }
  return values;
}

// A raw file, seen as rows whose elements lie `in_stride` apart: the files hold [in, out], the model's matrices are
// [out, in]. Opened for each reading, since a large model has more files than a process may hold open.
class RawTensor final : public ForeignTensor {
 public:
  struct Place {
    std::string path;
    int64_t modified_ns = 0;
    int64_t first = 0;       // element (0, 0)
    int64_t in_stride = 1;   // between the columns of a row
    int64_t row_stride = 1;  // between rows
  };
  RawTensor(DType type, std::vector<int64_t> shape, Place place)
      : ForeignTensor(type, std::move(shape)), place_(std::move(place)) {}

  void read_rows(int64_t row, int64_t count, std::span<std::byte> out) const override {
    const Result<std::unique_ptr<InputFile>> file = InputFile::open(place_.path);
    if (!file.ok()) throw Error(file.refusal().message);
    if (file.value()->modified_ns() != place_.modified_ns) {
      throw Error(place_.path + ": changed while it was being read; nothing was written");
    }
    const auto element = static_cast<int64_t>(dtype_bytes(dtype()));
    check_eq(out.size(), static_cast<size_t>(count * columns() * element), "RawTensor::read_rows: bytes");
    const auto at = [&](int64_t elements) { return static_cast<uint64_t>(elements * element); };
    if (place_.in_stride == 1) return file.value()->read_at(at(place_.first + row * place_.row_stride), out);
    std::vector<std::byte> column(static_cast<size_t>(count * element));  // the rows of a column are adjacent
    for (int64_t c = 0; c < columns(); ++c) {
      file.value()->read_at(at(place_.first + row + c * place_.in_stride), column);
      for (int64_t r = 0; r < count; ++r) {
        std::memcpy(out.data() + (r * columns() + c) * element, column.data() + r * element,
                    static_cast<size_t>(element));
      }
    }
  }

 private:
  Place place_;
};

struct CSizes {
  int64_t layers = 0, heads = 0, hidden = 0, ffn = 0, vocab = 0, positions = 0, parts = 0;
  DType dtype = DType::kF32;
};

class CModelReader {
 public:
  explicit CModelReader(std::string folder) : folder_(std::move(folder)) {}

  Result<ForeignCheckpoint> run() {
    if (Status status = read_ini(); !status.ok()) return status.refusal();
    foreign_.kind = "faster_transformer";
    foreign_.unused_position_rows = 0;
    foreign_.is_vocab_whole = true;
    foreign_.parts.resize(static_cast<size_t>(sizes_.parts));
    for (int64_t part = 0; part < sizes_.parts; ++part) {
      if (Status status = add_part(part); !status.ok()) return status.refusal();
    }
    foreign_.layout = "c-model of " + std::to_string(sizes_.parts) + (sizes_.parts == 1 ? " part" : " parts");
    foreign_.files.push_back({"config.ini", bytes_, to_hex(sha256(index_))});
    return std::move(foreign_);
  }

 private:
  Refusal bad_ini(const std::string& what) const {
    return refuse(ErrorCode::kDataCorrupt, folder_ + "/config.ini: " + what);
  }

  // The number that config.ini gives for `key`; nullopt: it has no such key.
  Result<std::optional<int64_t>> number(const char* key, int64_t min, int64_t max) const {
    const auto found = ini_.find(key);
    if (found == ini_.end()) return std::optional<int64_t>();
    int64_t value = 0;
    const std::string& text = found->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) {
      return bad_ini(std::string(key) + " is '" + text.substr(0, 40) + "', expected a number from " +
                     std::to_string(min) + " to " + std::to_string(max));
    }
    return std::optional(value);
  }

  // `otherwise` 0: the key must be there.
  Result<int64_t> size_of(const char* key, int64_t otherwise) const {
    const Result<std::optional<int64_t>> value = number(key, 1, kSizeMax);
    if (!value.ok()) return value.refusal();
    if (!value.value() && otherwise == 0) return bad_ini("says no " + std::string(key));
    return value.value().value_or(otherwise);
  }

  std::string word(const std::string& key, std::string otherwise) const {
    const auto found = ini_.find(key);
    std::string text = found == ini_.end() ? std::move(otherwise) : found->second;
    std::ranges::transform(text, text.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    return text;
  }

  Status read_ini() {
    const Result<std::string> text = checkpoint::read_text_file(folder_ + "/config.ini", kIniBytesMax);
    if (!text.ok()) return text.refusal();
    ini_ = parse_ini(text.value());
    index_ = text.value();
    if (Status status = read_sizes(); !status.ok()) return status;
    if (Status status = read_words(); !status.ok()) return status;
    std::error_code ignored;
    while (sizes_.parts < kPartsMax &&
           fs::exists(path_of("layers.0.attention.query_key_value.weight." + std::to_string(sizes_.parts)), ignored)) {
      ++sizes_.parts;
    }
    sizes_.parts = std::max<int64_t>(sizes_.parts, 1);
    if (sizes_.heads % sizes_.parts != 0 || sizes_.ffn % sizes_.parts != 0) {
      return bad_ini(std::to_string(sizes_.parts) + " parts cannot share " + std::to_string(sizes_.heads) + " heads");
    }
    foreign_.hints.num_heads = sizes_.heads;
    foreign_.hints.num_heads_key = folder_ + "/config.ini: head_num";
    return ok_status();
  }

  Status read_sizes() {
    int64_t head_dim = 0;
    const std::array<std::pair<const char*, int64_t*>, 4> needed = {{{"num_layer", &sizes_.layers},
                                                                     {"head_num", &sizes_.heads},
                                                                     {"size_per_head", &head_dim},
                                                                     {"vocab_size", &sizes_.vocab}}};
    for (const auto& [key, size] : needed) {
      const Result<int64_t> value = size_of(key, 0);
      if (!value.ok()) return value.refusal();
      *size = value.value();
    }
    sizes_.hidden = sizes_.heads * head_dim;
    if (sizes_.hidden > kSizeMax) return bad_ini("head_num and size_per_head give too large a width");
    const Result<int64_t> ffn = size_of("inter_size", 4 * sizes_.hidden), positions = size_of("max_pos_seq_len", 2048);
    if (!ffn.ok()) return ffn.refusal();
    if (!positions.ok()) return positions.refusal();
    sizes_.ffn = ffn.value();
    sizes_.positions = positions.value();
    return ok_status();
  }

  Status read_words() {
    const std::string type = word("weight_data_type", std::string(kDtypeNames.front()));
    const std::string activation = word("activation_type", "relu");
    const auto dtype = parse_weight_dtype(type);
    if (!dtype) return bad_ini("weight_data_type is '" + type + "', expected fp32 or fp16");
    sizes_.dtype = *dtype;
    if (word(std::string(kQuantFormatNames.front()), "0") == "1") {
      return bad_ini("its weights are quantised for one kind of GPU; convert the model that they were made from");
    }
    if (activation != "relu") return bad_ini("activation_type is '" + activation + "', expected Relu");
    const std::string norms = word("layernorm_type", "pre_layernorm");
    if (norms != "pre_layernorm" && norms != "post_layernorm") {
      return bad_ini("layernorm_type is '" + norms + "', expected pre_layernorm or post_layernorm");
    }
    foreign_.hints.norm_before = norms == "pre_layernorm";
    const std::string final_norm = word("has_post_decoder_layernorm", *foreign_.hints.norm_before ? "1" : "0");
    foreign_.hints.final_norm = final_norm == "1" || final_norm == "true";
    const auto start = number("start_id", 0, sizes_.vocab - 1), end = number("end_id", 0, sizes_.vocab - 1);
    if (!start.ok()) return start.refusal();
    if (!end.ok()) return end.refusal();
    if (start.value()) foreign_.hints.bos_id = *start.value();
    if (end.value()) foreign_.hints.eos_ids = {*end.value()};
    return ok_status();
  }

  std::string path_of(const std::string& name) const { return folder_ + "/model." + name + ".bin"; }

  // A file of `in` rows of `out` elements as an [out, in] matrix, or of one row as a vector; `stacked` in one file.
  struct Wanted {
    int64_t in = 0, out = 0;
    bool as_stored = false;  // a table: [in, out] it is
    int64_t stacked = 1;     // matrices side by side in a row of the file
    int64_t index = 0;       // which of them
  };
  Status add(int64_t part, const std::string& name, const std::string& file, const Wanted& wanted) {
    const std::string path = path_of(file);
    const Result<std::unique_ptr<InputFile>> opened = InputFile::open(path);
    if (!opened.ok()) return opened.refusal();
    const auto element = static_cast<uint64_t>(dtype_bytes(sizes_.dtype));
    const uint64_t expected = static_cast<uint64_t>(wanted.in * wanted.out * wanted.stacked) * element;
    if (opened.value()->size() != expected) {
      return refuse(ErrorCode::kDataCorrupt, path + ": has " + std::to_string(opened.value()->size()) +
                                                 " bytes, the sizes in config.ini give " + std::to_string(expected));
    }
    if (wanted.index == 0) {
      bytes_ += expected;
      index_ += "\n" + file + " " + std::to_string(expected) + " " + std::to_string(opened.value()->modified_ns());
    }
    const int64_t row = wanted.out * wanted.stacked;
    RawTensor::Place place{path, opened.value()->modified_ns(), wanted.index * wanted.out, row, 1};
    std::vector<int64_t> shape = {wanted.out, wanted.in};
    if (wanted.as_stored) {
      place.in_stride = 1;
      place.row_stride = row;
      shape = {wanted.in, wanted.out};
    } else if (wanted.in == 1) {
      place.in_stride = 1;
      shape = {wanted.out};
    }
    foreign_.parts[static_cast<size_t>(part)].emplace(
        name, std::make_unique<RawTensor>(sizes_.dtype, shape, std::move(place)));
    return ok_status();
  }

  Status add_norm(int64_t part, const std::string& name, const std::string& file) {
    for (const char* leaf : {".weight", ".bias"}) {
      if (Status status = add(part, name + leaf, file + leaf, {1, sizes_.hidden}); !status.ok()) return status;
    }
    return ok_status();
  }

  // A matrix and its bias; `bias_is_split` where the outputs are shared.
  Status add_linear(int64_t part, const std::string& name, const std::string& file, int64_t in, int64_t out,
                    bool bias_is_split) {
    const std::string rank = "." + std::to_string(part);
    if (Status status = add(part, name + ".weight", file + ".weight" + rank, {in, out}); !status.ok()) return status;
    return add(part, name + ".bias", file + ".bias" + (bias_is_split ? rank : ""), {1, out});
  }

  Status add_layer(int64_t part, int64_t layer) {
    const std::string to = "decoder.layers." + std::to_string(layer) + ".",
                      from = "layers." + std::to_string(layer) + ".";
    const int64_t hidden = sizes_.hidden, share = hidden / sizes_.parts, ffn = sizes_.ffn / sizes_.parts;
    if (Status s = add_norm(part, to + "self_attn_layer_norm", from + "input_layernorm"); !s.ok()) return s;
    if (Status s = add_norm(part, to + "final_layer_norm", from + "post_attention_layernorm"); !s.ok()) return s;
    const std::string qkv = from + "attention.query_key_value.", rank = "." + std::to_string(part);
    for (int64_t i = 0; i < 3; ++i) {
      const std::string name = to + "self_attn." + "qkv"[i] + "_proj.";
      const Wanted weight{hidden, share, false, 3, i}, bias{1, share, false, 3, i};
      if (Status s = add(part, name + "weight", qkv + "weight" + rank, weight); !s.ok()) return s;
      if (Status s = add(part, name + "bias", qkv + "bias" + rank, bias); !s.ok()) return s;
    }
    if (Status s = add_linear(part, to + "self_attn.out_proj", from + "attention.dense", share, hidden, false);
        !s.ok()) {
      return s;
    }
    if (Status s = add_linear(part, to + "fc1", from + "mlp.dense_h_to_4h", hidden, ffn, true); !s.ok()) return s;
    return add_linear(part, to + "fc2", from + "mlp.dense_4h_to_h", ffn, hidden, false);
  }

  Status add_part(int64_t part) {
    const Wanted table{sizes_.vocab, sizes_.hidden, true}, positions{sizes_.positions, sizes_.hidden, true};
    if (Status s = add(part, "decoder.embed_tokens.weight", "wte", table); !s.ok()) return s;
    if (Status s = add(part, "decoder.embed_positions.weight", "wpe", positions); !s.ok()) return s;
    std::error_code ignored;
    if (fs::exists(path_of("lm_head.weight"), ignored)) {
      if (Status s = add(part, "decoder.output_projection.weight", "lm_head.weight", table); !s.ok()) return s;
    }
    if (*foreign_.hints.norm_before && foreign_.hints.final_norm) {
      if (Status s = add_norm(part, "decoder.layer_norm", "final_layernorm"); !s.ok()) return s;
    }
    for (int64_t layer = 0; layer < sizes_.layers; ++layer) {
      if (Status s = add_layer(part, layer); !s.ok()) return s;
    }
    return ok_status();
  }

  std::string folder_;
  Ini ini_;
  CSizes sizes_;
  ForeignCheckpoint foreign_;
  std::string index_;  // config.ini, and what is known of each file
  uint64_t bytes_ = 0;
};

}  // namespace

Result<std::optional<std::string>> find_c_model(const std::string& folder) {
  std::error_code ignored;
  if (fs::exists(fs::path(folder) / "config.ini", ignored)) return std::optional(folder);
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(folder, fs::directory_options::skip_permission_denied, ignored)) {
    if (entry.path().filename().string().ends_with("-gpu") && fs::exists(entry.path() / "config.ini", ignored)) {
      found.push_back(entry.path().string());
    }
  }
  std::ranges::sort(found);
  if (found.size() > 1) {
    return refuse(ErrorCode::kBadRequest,
                  folder + ": holds several models; name one of them, " + found[0] + " or " + found[1]);
  }
  return found.empty() ? std::optional<std::string>() : std::optional(found[0]);
}

Result<ForeignCheckpoint> open_c_model(const std::string& folder) { return CModelReader(folder).run(); }

}  // namespace optserve::converter
