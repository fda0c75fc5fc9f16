#include "converter/formats/foreign_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "converter/formats/mapper.h"

namespace optserve::converter {
namespace {

using conversion::OutputHead;

constexpr int64_t kCompareBytes = 4 << 20;

// Copies of one tensor may drift apart by rounding while a model is trained in half precision, whose steps are 2^-11 of
// a value; copies from different moments of training differ by far more than this share of the largest value.
constexpr float kDriftMax = 1.0f / 64;

// The largest difference between two runs of elements, and the largest value of the first.
struct Difference {
  float difference = 0;  // infinite if one of the two is not finite
  float largest = 0;
  float a = 0, b = 0;
  size_t element = 0;
};

int64_t rows_per_chunk(const model_spec::TensorSpec& spec, size_t element) {
  return std::max<int64_t>(1, kCompareBytes / (spec.cols * static_cast<int64_t>(element)));
}

std::vector<float> read_wide(const ForeignTensor& tensor, int64_t row, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count * tensor.columns()));
  std::vector<std::byte> raw(values.size() * dtype_bytes(tensor.dtype()));
  tensor.read_rows(row, count, raw);
  convert_to_f32(raw.data(), tensor.dtype(), values.data(), values.size());
  return values;
}

Difference compare(const ForeignTensor& first, int64_t first_row, const ForeignTensor& other, int64_t other_row,
                   int64_t count) {
  const std::vector<float> a = read_wide(first, first_row, count);
  const std::vector<float> b = read_wide(other, other_row, count);
  Difference found;
  for (size_t i = 0; i < a.size(); ++i) {
    found.largest = std::isfinite(a[i]) ? std::max(found.largest, std::abs(a[i])) : found.largest;
    if (std::memcmp(&a[i], &b[i], sizeof(float)) == 0) continue;
    const bool is_number = std::isfinite(a[i]) && std::isfinite(b[i]);
    const float difference = is_number ? std::abs(a[i] - b[i]) : std::numeric_limits<float>::infinity();
    if (difference > found.difference) found = {difference, found.largest, a[i], b[i], i};
  }
  return found;
}

std::vector<std::byte> rounded(std::span<const float> values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * dtype_bytes(dtype));
  convert_from_f32(values.data(), dtype, bytes.data(), values.size());
  return bytes;
}

}  // namespace

Result<ForeignModel> ForeignModel::open(ForeignCheckpoint foreign, const model_spec::OptConfig& config,
                                        OutputHead head) {
  if (head == OutputHead::kTable) {
    for (ForeignPart& part : foreign.parts) part.erase(std::string(kOutputProjection));
  }
  if (Status status = add_absent(foreign, config); !status.ok()) return status.refusal();
  ForeignModel source;
  source.foreign_ = std::move(foreign);
  source.config_ = config;
  const bool has_output = source.foreign_.parts.at(0).contains(std::string(kOutputProjection));
  source.config_.tied_output = !has_output;
  auto mappings = Mapper(source.foreign_, source.config_).run();
  if (!mappings.ok()) return mappings.refusal();
  source.mappings_ = std::move(mappings).value();
  if (Status status = source.settle_output(head); !status.ok()) return status.refusal();
  return source;
}

// An output projection that repeats the token table is dropped. The configuration, where there is one, must agree.
Status ForeignModel::settle_output(OutputHead head) {
  const std::optional<bool> stated = foreign_.hints.tied_output;
  const std::string name = file_spelling(foreign_, std::string(kOutputProjection));
  if (config_.tied_output) {
    if (head == OutputHead::kOwn) {
      return refuse(ErrorCode::kBadRequest, "the model's own head was asked for, but the files hold no " + name);
    }
    if (head == OutputHead::kTable || stated.value_or(true)) return ok_status();
    return refuse(ErrorCode::kDataCorrupt, "the configuration says that the head is not the token table, but " + name +
                                               " is missing; --head table serves the table as the head");
  }
  config_.tied_output = output_is_tied();
  if (config_.tied_output) {
    mappings_.erase("output_projection.weight");
  } else if (stated.value_or(false) && head == OutputHead::kAuto) {
    return refuse(ErrorCode::kDataCorrupt,
                  "the configuration says that the head is the token table, but the weights of " + name +
                      " differ from it; --head table serves the table, as transformers does, --head own the other one");
  }
  return ok_status();
}

bool ForeignModel::output_is_tied() const {
  const auto table = model_spec::opt_tensors(config_);
  const model_spec::TensorSpec& tokens = table.front();
  const model_spec::TensorSpec& output = table.back();
  // Trainers may keep one of the two in a wider type: then the two are equal once that one is rounded.
  if (dtype(tokens) != dtype(output) && !foreign_.hints.tied_output.value_or(true)) return false;
  const auto bytes = [&](const model_spec::TensorSpec& spec) { return dtype_bytes(dtype(spec)); };
  const DType common = bytes(output) < bytes(tokens) ? dtype(output) : dtype(tokens);
  const int64_t step = rows_per_chunk(tokens, sizeof(float));
  WideRows table_rows(*this), head_rows(*this);
  for (int64_t row = 0; row < tokens.rows; row += step) {
    const int64_t count = std::min(step, tokens.rows - row);
    if (rounded(table_rows.read(tokens, row, count), common) != rounded(head_rows.read(output, row, count), common)) {
      return false;
    }
  }
  return true;
}

DType ForeignModel::dtype(const model_spec::TensorSpec& spec) const {
  const std::vector<Region>& regions = mapping(spec).regions;
  const DType first = regions.at(0).tensor->dtype();
  const bool is_uniform = std::all_of(regions.begin(), regions.end(),
                                      [&](const Region& region) { return region.tensor->dtype() == first; });
  return is_uniform ? first : DType::kF32;
}

DType ForeignModel::natural_dtype() const {
  std::optional<DType> common;
  for (const model_spec::TensorSpec& spec : model_spec::opt_tensors(config_)) {
    const DType found = dtype(spec);
    if (common.value_or(found) != found || found == DType::kF64) return DType::kF32;
    common = found;
  }
  return common.value_or(DType::kF32);
}

Status ForeignModel::check_bytes(const model_spec::TensorSpec& spec) const {
  const Mapping& found = mapping(spec);
  for (const auto* regions : {&found.regions, &found.replicas}) {
    for (const Region& region : *regions) {
      if (Status status = region.tensor->check_bytes(); !status.ok()) return status;
    }
  }
  return check_replicas(spec);
}

void ForeignModel::read_rows(const model_spec::TensorSpec& spec, int64_t row, int64_t count,
                             std::span<std::byte> out) const {
  const DType type = dtype(spec);
  const auto element = static_cast<int64_t>(dtype_bytes(type));
  check_eq(out.size(), static_cast<size_t>(count * spec.cols * element),
           "ForeignModel::read_rows: bytes of " + spec.name);
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
    const size_t source_element = dtype_bytes(tensor.dtype());
    piece.resize(static_cast<size_t>(rows * columns) * source_element);
    tensor.read_rows(from, rows, piece);
    for (int64_t i = 0; i < rows; ++i) {
      const std::byte* line = piece.data() + static_cast<size_t>(i * columns) * source_element;
      std::byte* place = to + i * spec.cols * element;
      if (tensor.dtype() == type) {
        std::memcpy(place, line, static_cast<size_t>(columns * element));
      } else {
        std::vector<float> wide(static_cast<size_t>(columns));
        convert_to_f32(line, tensor.dtype(), wide.data(), wide.size());
        std::memcpy(place, wide.data(), wide.size() * sizeof(float));
      }
    }
  }
}

bool ForeignModel::replicas_agree(const model_spec::TensorSpec& spec) const {
  const Mapping& found = mapping(spec);
  if (found.replicas.empty()) return true;
  const Region& first = found.regions.at(0);
  const size_t element = dtype_bytes(first.tensor->dtype());
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

Status ForeignModel::check_replicas(const model_spec::TensorSpec& spec) const {
  if (replicas_agree(spec)) return ok_status();
  const Mapping& found = mapping(spec);
  const Region& first = found.regions.at(0);
  std::string worst_text;
  float worst = 0;
  float largest = 0;
  for (size_t i = 0; i < found.replicas.size(); ++i) {
    const Region& replica = found.replicas[i];
    const int64_t step = rows_per_chunk(spec, sizeof(float));
    for (int64_t row = 0; row < spec.rows; row += step) {
      const int64_t count = std::min(step, spec.rows - row);
      const Difference at =
          compare(*first.tensor, first.tensor_row + row, *replica.tensor, replica.tensor_row + row, count);
      largest = std::max(largest, at.largest);
      if (at.difference <= worst) continue;
      worst = at.difference;
      worst_text = spec.name + " is " + std::to_string(at.a) + " in part 0 and " + std::to_string(at.b) + " in part " +
                   std::to_string(i + 1) + " at element " +
                   std::to_string(row * spec.cols + static_cast<int64_t>(at.element));
    }
  }
  if (worst <= kDriftMax * largest) return ok_status();
  return refuse(ErrorCode::kDataCorrupt, "the parts do not belong to one checkpoint: " + worst_text);
}

Status ForeignModel::check_unchanged() const {
  const auto changed = [](const checkpoint::ByteSource& file) {
    return refuse(ErrorCode::kDataCorrupt, file.name() + ": changed while it was being read; nothing was written");
  };
  for (const auto& file : foreign_.pt_files) {
    if (file->source().has_changed()) return changed(file->source());
  }
  for (const auto& file : foreign_.plain_files) {
    if (file->has_changed()) return changed(*file);
  }
  return ok_status();
}

}  // namespace optserve::converter
