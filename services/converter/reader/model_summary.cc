#include "converter/reader/model_summary.h"

#include <algorithm>
#include <cstring>

#include "base/limits.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "checkpoint/safetensors/safetensors.h"
#include "model_spec/opt_tensors.h"

namespace optserve::converter {
namespace {

using checkpoint::SourceFile;
using model_spec::OptConfig;

constexpr size_t kTextMax = 1024;  // of a kind, a layout and a file's name
constexpr size_t kLongTextMax = 16 << 10;
constexpr size_t kFilesMax = 4096;
constexpr size_t kWarningsMax = 4096;
constexpr size_t kTensorsMax = 200'000;

// One list of members for both directions, so that they cannot disagree.
template <class Archive, class Config>
void visit_config(Archive& archive, Config& config) {
  archive.text(config.name, kTextMax);
  for (auto* number : {&config.num_layers, &config.hidden, &config.num_heads, &config.ffn, &config.vocab,
                       &config.vocab_real, &config.embed_dim, &config.max_positions}) {
    archive.number(*number);
  }
  for (auto* flag : {&config.norm_before, &config.tied_output, &config.final_norm, &config.leads_with_bos}) {
    archive.flag(*flag);
  }
  archive.activation(config.activation);
  for (auto* id : {&config.bos_id, &config.eos_id, &config.pad_id}) archive.number(*id);
  archive.list(config.more_eos_ids, model_spec::kMoreEosIdsMax, [&](auto& id) { archive.number(id); });
}

template <class Archive, class Summary>
void visit(Archive& archive, Summary& summary) {
  archive.text(summary.kind, kTextMax);
  archive.text(summary.layout, kTextMax);
  archive.list(summary.files, kFilesMax, [&](auto& file) {
    archive.text(file.name, kTextMax);
    archive.number(file.bytes);
    archive.text(file.index_sha256, kTextMax);
  });
  archive.list(summary.warnings, kWarningsMax, [&](auto& warning) { archive.text(warning, kLongTextMax); });
  archive.list(summary.tensors, kTensorsMax, [&](auto& tensor) {
    archive.text(tensor.name, checkpoint::kStoredNameMax);
    archive.dtype(tensor.dtype);
    archive.list(tensor.shape, checkpoint::kStoredDimsMax, [&](auto& size) { archive.number(size); });
    archive.number(tensor.part);
  });
  archive.text(summary.problem, kLongTextMax);
  archive.dtype(summary.natural_dtype);
  archive.list(summary.dtypes, kTensorsMax, [&](auto& dtype) { archive.dtype(dtype); });
  archive.flag(summary.has_replicas);
  archive.flag(summary.has_tokenizer);
  archive.optional(summary.config, [&](auto& config) { visit_config(archive, config); });
}

template <class Archive, class Files>
void visit_tokenizer(Archive& archive, Files& files) {
  archive.number(files.tokens);
  archive.number(files.bos_id);
  archive.number(files.eos_id);
  archive.flag(files.leads_with_bos);
  archive.list(files.notes, kWarningsMax, [&](auto& note) { archive.text(note, kLongTextMax); });
}

class Encoder {
 public:
  void number(auto value) {
    const auto wide = static_cast<uint64_t>(static_cast<int64_t>(value));
    for (int i = 0; i < 8; ++i) bytes_ += static_cast<char>(wide >> (8 * i) & 0xff);
  }
  void flag(bool value) { bytes_ += static_cast<char>(value ? 1 : 0); }
  void dtype(DType value) { bytes_ += static_cast<char>(value); }
  void activation(model_spec::Activation value) { flag(value == model_spec::Activation::kGelu); }
  void text(const std::string& value, size_t max) {
    const std::string_view part = std::string_view(value).substr(0, max);
    number(part.size());
    bytes_ += part;
  }
  template <class T>
  void list(const std::vector<T>& values, size_t max, auto visit_one) {
    fits_ = fits_ && values.size() <= max;
    number(values.size());
    for (const T& value : values) visit_one(value);
  }
  template <class T>
  void optional(const std::optional<T>& value, auto visit_one) {
    flag(value.has_value());
    if (value) visit_one(*value);
  }

  bool fits() const { return fits_; }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
  bool fits_ = true;
};

// Gives zeros and empty texts once it has failed.
class Decoder {
 public:
  explicit Decoder(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class T>
  void number(T& value) {
    uint64_t wide = 0;
    std::byte raw[8] = {};
    take(raw, sizeof raw);
    for (int i = 7; i >= 0; --i) wide = wide << 8 | static_cast<uint64_t>(raw[i]);
    value = static_cast<T>(wide);
    expect(static_cast<uint64_t>(static_cast<int64_t>(value)) == wide, "a number out of range");
  }
  void flag(bool& value) {
    std::byte raw{};
    take(&raw, 1);
    value = raw == std::byte{1};
    expect(raw <= std::byte{1}, "a flag that is neither 0 nor 1");
  }
  void dtype(DType& value) {
    std::byte raw{};
    take(&raw, 1);
    expect(raw <= static_cast<std::byte>(DType::kBool), "an unknown type");
    value = fault_.empty() ? static_cast<DType>(raw) : DType::kF32;
  }
  void activation(model_spec::Activation& value) {
    bool is_gelu = false;
    flag(is_gelu);
    value = is_gelu ? model_spec::Activation::kGelu : model_spec::Activation::kRelu;
  }
  void text(std::string& value, size_t max) {
    value.assign(length(max, 1), '\0');
    take(value.data(), value.size());
    value = printable_text(value, max);
  }
  template <class T>
  void list(std::vector<T>& values, size_t max, auto visit_one) {
    const size_t count = length(max, 1);
    for (size_t i = 0; i < count && fault_.empty(); ++i) visit_one(values.emplace_back());
  }
  template <class T>
  void optional(std::optional<T>& value, auto visit_one) {
    bool has_value = false;
    flag(has_value);
    if (has_value) visit_one(value.emplace());
  }
  void expect(bool condition, std::string_view fault) {
    if (!condition && fault_.empty()) fault_ = fault;
  }
  const std::string& finish() {
    expect(at_ == bytes_.size(), "bytes after its last field");
    return fault_;
  }

 private:
  // A length up to `max`, of elements that take at least `each` bytes.
  size_t length(size_t max, size_t each) {
    uint64_t count = 0;
    number(count);
    expect(count <= max && count <= (bytes_.size() - at_) / each, "a length out of range");
    return fault_.empty() ? count : 0;
  }
  void take(void* out, size_t count) {
    expect(bytes_.size() - at_ >= count, "too few bytes for its fields");
    if (!fault_.empty()) return;
    if (count > 0) std::memcpy(out, bytes_.data() + at_, count);
    at_ += count;
  }

  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  std::string fault_;
};

std::string fault_of(const ModelSummary& summary) {
  if (summary.kind.empty() || summary.layout.empty()) return "neither kind nor layout";
  for (const SourceFile& file : summary.files) {
    if (file.name.empty() || file.name.find('/') != std::string::npos) return "a file name with a folder in it";
    if (file.bytes > INT64_MAX) return "a file's size out of range";
    if (!file.index_sha256.empty() && !is_sha256_hex(file.index_sha256)) return "an invalid digest";
  }
  for (const ForeignEntry& tensor : summary.tensors) {
    if (!checkpoint::checked_elements(tensor.shape)) return "a shape out of range";
  }
  if (!summary.config) return summary.problem.empty() ? "neither a model nor a problem" : "";
  if (const Status status = model_spec::validate(*summary.config); !status.ok()) return status.refusal().message;
  if (!summary.problem.empty()) return "";
  if (summary.dtypes.size() != model_spec::opt_tensors(*summary.config).size()) return "another number of tensors";
  const bool are_floating = std::all_of(summary.dtypes.begin(), summary.dtypes.end(), is_floating);
  const bool is_natural = is_floating(summary.natural_dtype) && summary.natural_dtype != DType::kF64;
  return are_floating && is_natural ? "" : "a type that weights cannot have";
}

}  // namespace

std::string printable_text(std::string_view text, size_t bytes_max) {
  std::string out(text.substr(0, bytes_max));
  const size_t valid = valid_utf8_prefix(out);
  if (valid != out.size() && valid + 4 > out.size() && is_incomplete_utf8(std::string_view(out).substr(valid))) {
    out.resize(valid);  // a character that was cut
  }
  const bool is_utf8 = is_valid_utf8(out);
  for (size_t i = 0; i < out.size(); ++i) {
    const auto byte = static_cast<unsigned char>(out[i]);
    const bool is_control = (byte < 0x20 && byte != '\n') || byte == 0x7f;
    if (is_control || (byte >= 0x80 && !is_utf8)) out[i] = '?';
    // U+0080 to U+009F, the other control characters of terminals
    if (is_utf8 && byte == 0xc2 && static_cast<unsigned char>(out[i + 1]) < 0xa0) out[i] = out[i + 1] = '?';
  }
  return out;
}

Result<std::string> encode_summary(const ModelSummary& summary, uint64_t bytes_max) {
  Encoder encoder;
  visit(encoder, summary);
  const bool fits = encoder.fits();
  std::string bytes = encoder.take();
  if (fits && bytes.size() <= bytes_max) return bytes;
  return refuse(ErrorCode::kDataCorrupt, "the checkpoint has " + std::to_string(summary.files.size()) + " files and " +
                                             std::to_string(summary.tensors.size()) +
                                             " tensors to list, which is more than the limit");
}

std::string encode_tokenizer(const TokenizerFiles& files) {
  Encoder encoder;
  visit_tokenizer(encoder, files);
  for (const std::string* text : {&files.vocab, &files.merges, &files.added}) encoder.number(text->size());
  return encoder.take();
}

Result<TokenizerSummary> decode_tokenizer(std::span<const std::byte> bytes) {
  TokenizerSummary summary;
  Decoder decoder(bytes);
  visit_tokenizer(decoder, summary.files);
  for (uint64_t& size : summary.bytes) decoder.number(size);
  std::string fault = decoder.finish();
  if (fault.empty() &&
      (summary.files.tokens < 1 || summary.files.tokens > static_cast<int64_t>(limits::kVocabularyMax))) {
    fault = "an impossible number of tokens";
  }
  if (fault.empty()) return summary;
  return refuse(ErrorCode::kDataCorrupt, "the checkpoint reader gave an invalid answer: " + fault);
}

Result<ModelSummary> decode_summary(std::span<const std::byte> bytes) {
  ModelSummary summary;
  Decoder decoder(bytes);
  visit(decoder, summary);
  std::string fault = decoder.finish();
  if (fault.empty()) fault = fault_of(summary);
  if (fault.empty()) return summary;
  return refuse(ErrorCode::kDataCorrupt, "the checkpoint reader gave an invalid answer: " + fault);
}

}  // namespace optserve::converter
