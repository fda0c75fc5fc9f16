#include "converter/export/export.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "checkpoint/manifest/model_identity.h"
#include "checkpoint/reader.h"
#include "checkpoint/torch/pt_writer.h"
#include "converter/export/export_layout.h"
#include "converter/export/shard_rows.h"

namespace optserve::converter {
namespace {

using checkpoint::CheckpointReader;
using checkpoint::OutputFile;
using checkpoint::StagingFolder;
using checkpoint::StoredTensor;

constexpr int64_t kExportPieceElements = 4 << 20;  // of one read; up to 16 MB
constexpr int kExportHashThreads = 4;

// Writes the files of one export into a staging folder.
class Exporter {
 public:
  Exporter(const ShardRows& rows, StagingFolder& folder, const ExportOptions& options)
      : rows_(rows), folder_(folder), options_(options) {}

  Status run() {
    progress_.bytes_total = total_bytes();
    const bool done = options_.format == ExportFormat::kMetaseq ? write_metaseq() : write_huggingface();
    progress_.tensor = {};
    if (done && report()) return ok_status();
    return refuse(ErrorCode::kCancelled, "the export was cancelled");
  }

  uint64_t total_bytes() const {
    uint64_t total = 0;
    if (options_.format == ExportFormat::kHuggingFace) {
      for (const ExportTensor& tensor : huggingface_tensors(rows_.config())) total += bytes_of(tensor);
    } else {
      for (int part = 0; part < options_.parts; ++part) {
        for (const ExportTensor& tensor : metaseq_tensors(rows_.config(), part, options_.parts)) {
          total += bytes_of(tensor);
        }
      }
    }
    return total;
  }
  int files() const { return files_; }
  uint64_t bytes_done() const { return progress_.bytes_done; }

 private:
  using Sink = std::function<void(std::span<const std::byte>)>;

  uint64_t bytes_of(const ExportTensor& tensor) const {
    return static_cast<uint64_t>(tensor.elements()) * dtype_bytes(rows_.dtype());
  }

  bool write_metaseq() {
    for (int part = 0; part < options_.parts; ++part) {
      const std::vector<ExportTensor> tensors = metaseq_tensors(rows_.config(), part, options_.parts);
      checkpoint::PtWriter writer(folder_.new_file(metaseq_file_name(rows_.config(), part)),
                                  metaseq_pickle(rows_.config(), rows_.dtype(), options_.parts, tensors));
      for (const ExportTensor& tensor : tensors) {
        writer.begin_storage(bytes_of(tensor));
        if (!stream(tensor, [&](std::span<const std::byte> bytes) { writer.append(bytes); })) return false;
      }
      writer.finish();
      ++files_;
    }
    return true;
  }

  // Tensors in order, as many to a file as fit into file_bytes_max, at least one.
  std::vector<std::vector<ExportTensor>> pack(std::vector<ExportTensor> tensors) const {
    std::vector<std::vector<ExportTensor>> files;
    uint64_t bytes = 0;
    for (ExportTensor& tensor : tensors) {
      if (files.empty() || bytes + bytes_of(tensor) > options_.file_bytes_max) {
        files.emplace_back();
        bytes = 0;
      }
      bytes += bytes_of(tensor);
      files.back().push_back(std::move(tensor));
    }
    return files;
  }

  static std::string safetensors_name(size_t index, size_t count) {
    if (count == 1) return "model.safetensors";
    const auto five = [](size_t number) {
      const std::string digits = std::to_string(number);
      return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
    };
    return "model-" + five(index + 1) + "-of-" + five(count) + ".safetensors";
  }

  bool write_huggingface() {
    const auto files = pack(huggingface_tensors(rows_.config()));
    nlohmann::ordered_json map = nlohmann::ordered_json::object();
    for (size_t i = 0; i < files.size(); ++i) {
      const std::string name = safetensors_name(i, files.size());
      std::vector<StoredTensor> stored;
      for (const ExportTensor& tensor : files[i]) {
        stored.push_back({tensor.name, rows_.dtype(), tensor.shape, 0, 0});
        map[tensor.name] = name;
      }
      OutputFile file = folder_.new_file(name);
      const std::string header = checkpoint::safetensors_header(stored, {{"format", "pt"}});
      file.append(std::as_bytes(std::span(header)));
      for (const ExportTensor& tensor : files[i]) {
        if (!stream(tensor, [&](std::span<const std::byte> bytes) { file.append(bytes); })) return false;
      }
      file.finish();
      ++files_;
    }
    const nlohmann::ordered_json index = {{"metadata", {{"total_size", progress_.bytes_total}}}, {"weight_map", map}};
    if (files.size() > 1) folder_.write_file("model.safetensors.index.json", index.dump(2) + "\n");
    folder_.write_file("config.json", huggingface_config(rows_.config(), rows_.dtype()));
    return true;
  }

  bool stream(const ExportTensor& tensor, const Sink& sink) {
    progress_.tensor = tensor.name;
    const size_t element = dtype_bytes(rows_.dtype());
    const auto give = [&](std::span<const std::byte> bytes) {
      sink(bytes);
      progress_.bytes_done += bytes.size();
    };
    if (tensor.constant) {
      piece_.resize(element);
      convert_from_f32(&*tensor.constant, rows_.dtype(), piece_.data(), 1);
      give(piece_);
      return report();
    }
    const int64_t cols = tensor.block.cols;
    piece_.assign(static_cast<size_t>(tensor.zero_rows * cols) * element, std::byte{0});
    give(piece_);
    const int64_t step = std::max<int64_t>(1, kExportPieceElements / cols);
    for (const model_spec::RowRange& run : tensor.block.rows) {
      for (int64_t row = run.begin; row < run.begin + run.count; row += step) {
        const model_spec::RowRange range{row, std::min(step, run.begin + run.count - row)};
        piece_.resize(static_cast<size_t>(range.count * cols) * element);
        rows_.read(tensor.spec, range, tensor.block.col_begin, cols, piece_);
        give(piece_);
        if (!report()) return false;
      }
    }
    return true;
  }

  bool report() const { return !options_.on_progress || options_.on_progress(progress_); }

  const ShardRows& rows_;
  StagingFolder& folder_;
  const ExportOptions& options_;
  ConvertProgress progress_;
  std::vector<std::byte> piece_;
  int files_ = 0;
};

// The vocabulary and merges under the names that each system looks for.
Status write_tokenizer(const CheckpointReader& reader, const ExportOptions& options, StagingFolder& folder) {
  const checkpoint::Manifest& manifest = reader.manifest();
  const Result<std::string> vocab = checkpoint::read_listed_file(reader.folder(), manifest, manifest.vocab_file);
  if (!vocab.ok()) return vocab.refusal();
  const Result<std::string> merges = checkpoint::read_listed_file(reader.folder(), manifest, manifest.merges_file);
  if (!merges.ok()) return merges.refusal();
  const bool is_metaseq = options.format == ExportFormat::kMetaseq;
  folder.write_file(is_metaseq ? std::string(checkpoint::kVocabName) : "vocab.json", vocab.value());
  folder.write_file(is_metaseq ? std::string(checkpoint::kMergesName) : "merges.txt", merges.value());
  if (is_metaseq) return ok_status();
  const Result<HuggingFaceTokenizer> settings = huggingface_tokenizer(reader.config(), vocab.value());
  if (!settings.ok()) return settings.refusal();
  folder.write_file("tokenizer_config.json", settings.value().tokenizer_config);
  folder.write_file("special_tokens_map.json", settings.value().special_tokens_map);
  return ok_status();
}

Status check_parts(const ExportOptions& options, const model_spec::OptConfig& config) {
  if (options.format == ExportFormat::kMetaseq) return check_metaseq_parts(config, options.parts);
  if (options.parts != 1) {
    return refuse(ErrorCode::kBadRequest,
                  std::to_string(options.parts) + " parts were asked for; only the format metaseq has parts");
  }
  return ok_status();
}

}  // namespace

std::optional<ExportFormat> parse_export_format(std::string_view name) {
  if (name == "huggingface") return ExportFormat::kHuggingFace;
  if (name == "metaseq") return ExportFormat::kMetaseq;
  return std::nullopt;
}

Result<ExportResult> export_checkpoint(const ExportOptions& options) {
  const Result<CheckpointReader> reader = CheckpointReader::open(options.input);
  if (!reader.ok()) return reader.refusal();
  if (Status status = check_parts(options, reader.value().config()); !status.ok()) return status.refusal();
  const Result<ShardRows> rows = ShardRows::open(reader.value());
  if (!rows.ok()) return rows.refusal();
  const Result<std::unique_ptr<StagingFolder>> folder = StagingFolder::create(options.output);
  if (!folder.ok()) return folder.refusal();
  Exporter exporter(rows.value(), *folder.value(), options);
  if (Status status = checkpoint::check_room(options.output, exporter.total_bytes()); !status.ok()) {
    return status.refusal();
  }
  if (options.check_source) {
    if (Status status = reader.value().verify_checksums(0, 1, kExportHashThreads); !status.ok()) {
      return status.refusal();
    }
  }
  ExportResult result;
  result.config = rows.value().config();
  result.dtype = rows.value().dtype();
  result.has_tokenizer = !reader.value().manifest().vocab_file.empty();
  if (result.has_tokenizer) {
    if (Status status = write_tokenizer(reader.value(), options, *folder.value()); !status.ok()) {
      return status.refusal();
    }
  }
  if (Status status = exporter.run(); !status.ok()) return status.refusal();
  if (Status status = rows.value().check_unchanged(); !status.ok()) return status.refusal();
  result.files = exporter.files();
  result.bytes_written = exporter.bytes_done();
  if (Status status = folder.value()->publish(); !status.ok()) return status.refusal();
  return result;
}

}  // namespace optserve::converter
