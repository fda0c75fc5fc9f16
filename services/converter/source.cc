#include "converter/source.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "converter/mapper.h"

namespace optserve::converter {
namespace {

constexpr int64_t kCompareBytes = 4 << 20;
constexpr const char* kOutputProjection = "decoder.output_projection.weight";

int64_t rows_per_chunk(const model_spec::TensorSpec& spec, size_t element) {
  return std::max<int64_t>(1, kCompareBytes / (spec.cols * static_cast<int64_t>(element)));
}

}  // namespace

Result<Source> Source::open(ForeignCheckpoint foreign, const model_spec::OptConfig& config) {
  Source source;
  source.foreign_ = std::move(foreign);
  source.config_ = config;
  const bool has_output = source.foreign_.parts.at(0).contains(kOutputProjection);
  source.config_.tied_output = !has_output;
  auto mappings = Mapper(source.foreign_, source.config_).run();
  if (!mappings.ok()) return mappings.refusal();
  source.mappings_ = std::move(mappings).value();
  if (has_output && source.output_is_tied()) {
    source.config_.tied_output = true;
    source.mappings_.erase("output_projection.weight");
  }
  return source;
}

bool Source::output_is_tied() const {
  const auto table = model_spec::opt_tensors(config_);
  const model_spec::TensorSpec& tokens = table.front();
  const model_spec::TensorSpec& output = table.back();
  if (dtype(tokens) != dtype(output)) return false;
  const size_t element = tensor::dtype_bytes(dtype(tokens));
  const int64_t step = rows_per_chunk(tokens, element);
  std::vector<std::byte> a, b;
  for (int64_t row = 0; row < tokens.rows; row += step) {
    const int64_t count = std::min(step, tokens.rows - row);
    a.resize(static_cast<size_t>(count * tokens.cols) * element);
    b.resize(a.size());
    read_rows(tokens, row, count, a);
    read_rows(output, row, count, b);
    if (a != b) return false;
  }
  return true;
}

tensor::DType Source::dtype(const model_spec::TensorSpec& spec) const {
  const std::vector<Region>& regions = mapping(spec).regions;
  const tensor::DType first = regions.at(0).tensor->dtype();
  const bool is_uniform = std::all_of(regions.begin(), regions.end(),
                                      [&](const Region& region) { return region.tensor->dtype() == first; });
  return is_uniform ? first : tensor::DType::kF32;
}

tensor::DType Source::natural_dtype() const {
  std::optional<tensor::DType> common;
  for (const model_spec::TensorSpec& spec : model_spec::opt_tensors(config_)) {
    const tensor::DType found = dtype(spec);
    if (common.value_or(found) != found || found == tensor::DType::kF64) return tensor::DType::kF32;
    common = found;
  }
  return common.value_or(tensor::DType::kF32);
}

Status Source::check_bytes(const model_spec::TensorSpec& spec) const {
  for (const Region& region : mapping(spec).regions)
    if (Status status = region.tensor->check_bytes(); !status.ok()) return status;
  return ok_status();
}

void Source::read_rows(const model_spec::TensorSpec& spec, int64_t row, int64_t count, std::span<std::byte> out) const {
  const tensor::DType type = dtype(spec);
  const auto element = static_cast<int64_t>(tensor::dtype_bytes(type));
  check_eq(out.size(), static_cast<size_t>(count * spec.cols * element), "Source::read_rows: bytes of " + spec.name);
  std::vector<std::byte> piece;
  for (const Region& region : mapping(spec).regions) {
    const int64_t begin = std::max(row, region.row);
    const int64_t rows = std::min(row + count, region.row + region.rows) - begin;
    if (rows <= 0) continue;
    const ForeignTensor& tensor = *region.tensor;
    const int64_t from = region.tensor_row + begin - region.row;
    const int64_t columns = tensor.columns();
    std::byte* to = out.data() + ((begin - row) * spec.cols + region.column) * element;
    if (columns == spec.cols && tensor.dtype() == type) {
      tensor.read_rows(from, rows, {to, static_cast<size_t>(rows * columns * element)});
      continue;
    }
    const size_t source_element = tensor::dtype_bytes(tensor.dtype());
    piece.resize(static_cast<size_t>(rows * columns) * source_element);
    tensor.read_rows(from, rows, piece);
    for (int64_t i = 0; i < rows; ++i) {
      const std::byte* line = piece.data() + static_cast<size_t>(i * columns) * source_element;
      std::byte* place = to + i * spec.cols * element;
      if (tensor.dtype() == type) {
        std::memcpy(place, line, static_cast<size_t>(columns * element));
      } else {
        std::vector<float> wide(static_cast<size_t>(columns));
        tensor::convert_to_f32(line, tensor.dtype(), wide.data(), wide.size());
        std::memcpy(place, wide.data(), wide.size() * sizeof(float));
      }
    }
  }
}

bool Source::replicas_agree(const model_spec::TensorSpec& spec) const {
  const Mapping& found = mapping(spec);
  if (found.replicas.empty()) return true;
  const Region& first = found.regions.at(0);
  const size_t element = tensor::dtype_bytes(first.tensor->dtype());
  const int64_t step = rows_per_chunk(spec, element);
  std::vector<std::byte> expected, other;
  for (int64_t row = 0; row < spec.rows; row += step) {
    const int64_t count = std::min(step, spec.rows - row);
    expected.resize(static_cast<size_t>(count * spec.cols) * element);
    other.resize(expected.size());
    first.tensor->read_rows(first.tensor_row + row, count, expected);
    for (const Region& replica : found.replicas) {
      if (replica.tensor->dtype() != first.tensor->dtype()) return false;
      replica.tensor->read_rows(replica.tensor_row + row, count, other);
      if (other != expected) return false;
    }
  }
  return true;
}

Status Source::check_unchanged() const {
  const auto changed = [](const checkpoint::ByteSource& file) {
    return refuse(ErrorCode::kDataCorrupt, file.name() + ": changed while it was being read; nothing was written");
  };
  for (const auto& file : foreign_.pt_files)
    if (file->source().has_changed()) return changed(file->source());
  for (const auto& file : foreign_.plain_files)
    if (file->has_changed()) return changed(*file);
  return ok_status();
}

}  // namespace optserve::converter
