#include "converter/convert.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>

#include "base/check.h"
#include "checkpoint/writer.h"
#include "converter/existing_output.h"
#include "converter/source_reader.h"

namespace optserve::converter {
namespace {

using checkpoint::CheckpointWriter;
using model_spec::Split;
using model_spec::TensorSpec;
using tensor::DType;

constexpr int64_t kPieceElements = 4 << 20;  // of one read; up to 32 MB
constexpr size_t kCastElements = 16 << 10;   // of one pass through fp32
constexpr size_t kFaultsShown = 10;
constexpr std::string_view kCreatedBy = "optserve " OPTSERVE_VERSION;

// Elements that are NaN or infinite.
uint64_t count_nonfinite(std::span<const std::byte> bytes, DType dtype) {
  uint64_t count = 0;
  if (dtype == DType::kF32) {
    for (size_t i = 0; i < bytes.size(); i += 4) {
      uint32_t bits;
      std::memcpy(&bits, bytes.data() + i, sizeof bits);
      count += (bits & 0x7f800000u) == 0x7f800000u;
    }
    return count;
  }
  const uint16_t exponent = dtype == DType::kF16 ? 0x7c00 : 0x7f80;
  for (size_t i = 0; i < bytes.size(); i += 2) {
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + i, sizeof bits);
    count += (bits & exponent) == exponent;
  }
  return count;
}

// Moves the tensors of a SourceReader into a CheckpointWriter, one at a time and each in pieces of rows.
class Mover {
 public:
  Mover(const SourceReader& source, CheckpointWriter& writer, const CheckpointWriter::Plan& plan,
        const ConvertOptions& options)
      : source_(source), writer_(writer), plan_(plan), options_(options) {
    progress_.bytes_total = writer.shard_bytes() * static_cast<uint64_t>(plan.shards);
  }

  Status run(std::vector<std::string>& warnings) {
    for (const TensorSpec& spec : model_spec::opt_tensors(plan_.config)) {
      progress_.tensor = spec.name;
      if (options_.check_source)
        if (Status status = source_.check_bytes(spec); !status.ok()) return status;
      if (!source_.replicas_agree(spec))
        warnings.push_back(spec.name + " differs between parts; the first part's is used");
      nonfinite_in_tensor_ = 0;
      const bool go_on =
          spec.split == Split::kRows || spec.split == Split::kQkvRows ? move_by_shard(spec) : move_by_rows(spec);
      if (!go_on) return refuse(ErrorCode::kCancelled, "the conversion was cancelled");
      if (nonfinite_in_tensor_ > 0)
        faults_.push_back(spec.name + ": " + std::to_string(nonfinite_in_tensor_) + " of " +
                          std::to_string(spec.elements()));
      nonfinite_ += nonfinite_in_tensor_;
    }
    progress_.tensor = {};
    if (!report()) return refuse(ErrorCode::kCancelled, "the conversion was cancelled");
    return check_finite();
  }

  uint64_t nonfinite() const { return nonfinite_; }
  uint64_t bytes_done() const { return progress_.bytes_done; }

 private:
  // Row runs of one shard after the other: each row is read once.
  bool move_by_shard(const TensorSpec& spec) {
    for (int shard = 0; shard < plan_.shards; ++shard) {
      for (const model_spec::RowRange& range : model_spec::block_of(spec, shard, plan_.shards).rows) {
        for (int64_t row = range.begin; row < range.begin + range.count;) {
          const int64_t count = std::min(rows_per_piece(spec), range.begin + range.count - row);
          load(spec, row, count);
          append(shard, piece_);
          row += count;
          if (!report()) return false;
        }
      }
    }
    return true;
  }

  // All rows in order; every shard takes its columns, which for replicated tensors are all of them.
  bool move_by_rows(const TensorSpec& spec) {
    const size_t element = tensor::dtype_bytes(plan_.dtype);
    for (int64_t row = 0; row < spec.rows;) {
      const int64_t count = std::min(rows_per_piece(spec), spec.rows - row);
      load(spec, row, count);
      for (int shard = 0; shard < plan_.shards; ++shard) {
        const model_spec::Block block = model_spec::block_of(spec, shard, plan_.shards);
        if (block.cols == spec.cols) {
          append(shard, piece_);
          continue;
        }
        const size_t row_bytes = static_cast<size_t>(block.cols) * element;
        columns_.resize(static_cast<size_t>(count) * row_bytes);
        for (int64_t i = 0; i < count; ++i)
          std::memcpy(columns_.data() + static_cast<size_t>(i) * row_bytes,
                      piece_.data() + static_cast<size_t>(i * spec.cols + block.col_begin) * element, row_bytes);
        append(shard, columns_);
      }
      row += count;
      if (!report()) return false;
    }
    return true;
  }

  static int64_t rows_per_piece(const TensorSpec& spec) { return std::max<int64_t>(1, kPieceElements / spec.cols); }

  // Fills piece_ with rows in the output's type.
  void load(const TensorSpec& spec, int64_t row, int64_t count) {
    const DType from = source_.dtype(spec);
    const auto elements = static_cast<size_t>(count * spec.cols);
    std::vector<std::byte>& raw = from == plan_.dtype ? piece_ : raw_;
    raw.resize(elements * tensor::dtype_bytes(from));
    source_.read_rows(spec, row, count, raw);
    if (from != plan_.dtype) {
      piece_.resize(elements * tensor::dtype_bytes(plan_.dtype));
      wide_.resize(kCastElements);
      for (size_t at = 0; at < elements; at += kCastElements) {
        const size_t length = std::min(kCastElements, elements - at);
        tensor::convert_to_f32(raw.data() + at * tensor::dtype_bytes(from), from, wide_.data(), length);
        tensor::convert_from_f32(wide_.data(), plan_.dtype, piece_.data() + at * tensor::dtype_bytes(plan_.dtype),
                                 length);
      }
    }
    nonfinite_in_tensor_ += count_nonfinite(piece_, plan_.dtype);
  }

  void append(int shard, std::span<const std::byte> bytes) {
    writer_.append(shard, bytes);
    progress_.bytes_done += bytes.size();
  }

  bool report() const { return !options_.on_progress || options_.on_progress(progress_); }

  Status check_finite() const {
    if (faults_.empty() || options_.allow_nonfinite) return ok_status();
    std::string text = std::to_string(nonfinite_) + " weights are NaN or infinite in " +
                       std::string(tensor::dtype_name(plan_.dtype)) + "; nothing was written:";
    for (size_t i = 0; i < std::min(faults_.size(), kFaultsShown); ++i) text += "\n  " + faults_[i];
    if (faults_.size() > kFaultsShown)
      text += "\n  and " + std::to_string(faults_.size() - kFaultsShown) + " more tensors";
    return refuse(ErrorCode::kDataCorrupt, text);
  }

  const SourceReader& source_;
  CheckpointWriter& writer_;
  const CheckpointWriter::Plan& plan_;
  const ConvertOptions& options_;
  ConvertProgress progress_;
  std::vector<std::byte> piece_;    // rows in the output's type
  std::vector<std::byte> raw_;      // rows in the input's type
  std::vector<std::byte> columns_;  // one shard's columns of piece_
  std::vector<float> wide_;
  uint64_t nonfinite_ = 0;
  uint64_t nonfinite_in_tensor_ = 0;
  std::vector<std::string> faults_;
};

// The last part of the output path, with what a model's name must not hold replaced.
std::string name_of(const ConvertOptions& options) {
  if (!options.name.empty()) return options.name;
  std::string path = options.output;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  std::string name = std::filesystem::path(path).filename().string().substr(0, 64);
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_' && c != '-') c = '-';
  return name;
}

// Refuses early what would fail after hours: too little room on the target's file system.
Status check_room(const std::string& output, uint64_t bytes) {
  std::string parent = std::filesystem::path(output).parent_path().string();
  if (parent.empty()) parent = ".";
  struct statvfs info {};
  if (statvfs(parent.c_str(), &info) != 0) return ok_status();  // the writer will say what is wrong
  const uint64_t room = static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  if (room >= bytes) return ok_status();
  return refuse(ErrorCode::kUnavailable, parent + ": " + std::to_string(bytes >> 20) + " MiB are needed, " +
                                             std::to_string(room >> 20) + " MiB are free");
}

Result<SourceReader> open_source(const ConvertOptions& options) {
  return SourceReader::open({.input = options.input,
                             .name = name_of(options),
                             .num_heads = options.num_heads,
                             .vocab_file = options.vocab_file,
                             .merges_file = options.merges_file},
                            options.reader);
}

Result<CheckpointWriter::Plan> make_plan(const ConvertOptions& options, const SourceReader& source,
                                         const std::optional<TokenizerFiles>& tokenizer) {
  CheckpointWriter::Plan plan;
  plan.config = source.config();
  if (tokenizer && tokenizer->tokens > plan.config.vocab)
    return refuse(ErrorCode::kBadRequest, "the vocabulary has " + std::to_string(tokenizer->tokens) +
                                              " tokens, the model " + std::to_string(plan.config.vocab) +
                                              "; it belongs to another model");
  if (tokenizer) plan.config.vocab_real = std::min(plan.config.vocab_real, tokenizer->tokens);
  plan.dtype = options.dtype.value_or(source.natural_dtype());
  check(tensor::is_floating(plan.dtype) && plan.dtype != DType::kF64, "convert: output type");
  plan.shards = options.shards > 0 ? options.shards : default_shards(plan.config);
  if (!model_spec::is_legal_world(plan.config, plan.shards))
    return refuse(ErrorCode::kBadRequest, std::to_string(plan.shards) + " shards were asked for, the model allows " +
                                              model_spec::legal_worlds_text(plan.config));
  return plan;
}

}  // namespace

int default_shards(const model_spec::OptConfig& config) {
  for (int shards : {8, 4, 2})
    if (model_spec::is_legal_world(config, shards)) return shards;
  return 1;
}

Result<ConvertResult> convert(const ConvertOptions& options) {
  Result<SourceReader> source = open_source(options);
  if (!source.ok()) return source.refusal();
  const SourceSummary& summary = source.value().summary();
  Result<std::optional<TokenizerFiles>> tokenizer = source.value().tokenizer();
  if (!tokenizer.ok()) return tokenizer.refusal();
  Result<CheckpointWriter::Plan> plan = make_plan(options, source.value(), tokenizer.value());
  if (!plan.ok()) return plan.refusal();
  ConvertResult result;
  result.config = plan.value().config;
  result.dtype = plan.value().dtype;
  result.shards = plan.value().shards;
  result.parameters = model_spec::parameter_count(result.config);
  result.layout = summary.kind + ", " + summary.layout;
  result.warnings = summary.warnings;
  result.has_tokenizer = tokenizer.value().has_value();
  const checkpoint::SourceInfo origin{result.layout, summary.files};
  result.existed = options.accept_existing && is_output_of(options.output, plan.value(), origin, tokenizer.value());
  if (result.existed) return result;

  auto writer = CheckpointWriter::create(options.output, plan.value());
  if (!writer.ok()) return writer.refusal();
  const uint64_t bytes = writer.value()->shard_bytes() * static_cast<uint64_t>(plan.value().shards);
  if (Status status = check_room(options.output, bytes); !status.ok()) return status.refusal();
  if (result.has_tokenizer)
    writer.value()->add_tokenizer(tokenizer.value()->vocab, tokenizer.value()->merges);
  else
    result.warnings.push_back("no vocabulary was found beside the input; the model will serve token ids only");

  Mover mover(source.value(), *writer.value(), plan.value(), options);
  if (Status status = mover.run(result.warnings); !status.ok()) return status.refusal();
  if (Status status = source.value().check_unchanged(); !status.ok()) return status.refusal();
  result.nonfinite = mover.nonfinite();
  result.bytes_written = mover.bytes_done();
  if (Status status = writer.value()->publish(origin, kCreatedBy); !status.ok()) return status.refusal();
  return result;
}

}  // namespace optserve::converter
