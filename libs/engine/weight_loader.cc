#include "engine/weight_loader.h"

#include "base/check.h"
#include "quant/quantise.h"

namespace optserve::engine {

namespace {

uint64_t block_bytes(const WeightSource& source, const model_spec::TensorSpec& spec, int world) {
  return static_cast<uint64_t>(block_of(spec, 0, world).elements()) * tensor::dtype_bytes(source.dtype());
}

}  // namespace

WeightLoader::WeightLoader(const WeightSource& source, Backend& backend, int rank, int world, Progress progress)
    : source_(source), backend_(backend), rank_(rank), world_(world), progress_(std::move(progress)) {
  for (const model_spec::TensorSpec& spec : source.tensors()) {
    specs_.emplace(spec.name, &spec);
    total_ += block_bytes(source, spec, world);
  }
}

const model_spec::TensorSpec& WeightLoader::take(std::string_view name) {
  const auto found = specs_.find(name);
  if (found == specs_.end()) {
    check_failed("the tensor table has no " + std::string(name), std::source_location::current());
  }
  return *found->second;
}

const model_spec::TensorSpec& WeightLoader::note(const model_spec::TensorSpec& spec) {
  if (!taken_.insert(spec.name).second) return spec;  // a tied table, taken twice
  done_ += block_bytes(source_, spec, world_);
  if (progress_) progress_(done_, total_);
  return spec;
}

std::byte* WeightLoader::next_staging(uint64_t bytes) {
  turn_ = (turn_ + 1) % kBuffers;
  Staging& staging = staging_[turn_];
  if (staging.in_use_until) backend_.wait(*staging.in_use_until);
  if (staging.bytes.bytes() < bytes) staging.bytes = backend_.allocate_host(bytes);
  return static_cast<std::byte*>(staging.bytes.data());
}

const void* WeightLoader::read(const model_spec::TensorSpec& spec) {
  const uint64_t bytes = block_bytes(source_, spec, world_);
  std::byte* block = next_staging(bytes);
  source_.read_block(spec, rank_, world_, {block, bytes});
  return block;
}

const void* WeightLoader::read_quantised(const model_spec::TensorSpec& spec, DType dtype) {
  const QuantFormat format = source_.format(spec);
  const model_spec::Block block = block_of(spec, rank_, world_);
  const auto rows = static_cast<size_t>(block.row_count()), cols = static_cast<size_t>(block.cols);
  const size_t row_bytes =
      static_cast<size_t>(elements_per_row(format, block.cols)) * dtype_bytes(info(format).storage);
  const auto row_scales = static_cast<size_t>(scales_per_row(format, block.cols));
  quantised_.resize(rows * row_bytes);
  scales_.resize(rows * row_scales);
  row_.resize(cols);
  source_.read_block(spec, rank_, world_, quantised_);
  source_.read_scales(spec, rank_, world_, scales_);
  std::byte* plain = next_staging(rows * cols * dtype_bytes(dtype));
  for (size_t i = 0; i < rows; ++i) {
    dequantise_rows(format, std::span(quantised_).subspan(i * row_bytes, row_bytes),
                    std::span(scales_).subspan(i * row_scales, row_scales), block.cols, row_);
    tensor::convert_from_f32(row_.data(), dtype, plain + i * cols * dtype_bytes(dtype), cols);
  }
  return plain;
}

void WeightLoader::uploaded() { staging_[turn_].in_use_until = backend_.mark(); }

Weight WeightLoader::matrix(std::string_view name) {
  const model_spec::TensorSpec& spec = note(take(name));
  if (const auto random = source_.random_block(spec, rank_, world_)) return backend_.random_weight(*random);
  const model_spec::Block block = block_of(spec, rank_, world_);
  // bf16 would round once more, by as much as int8 does.
  const bool is_quantised = !is_plain(source_.format(spec));
  const DType dtype = is_quantised && source_.dtype() == DType::kBF16 ? DType::kF32 : source_.dtype();
  const void* plain = is_quantised ? read_quantised(spec, dtype) : read(spec);
  Weight weight = backend_.load_weight(plain, dtype, block.row_count(), block.cols);
  uploaded();
  return weight;
}

Table WeightLoader::table(std::string_view name) {
  const model_spec::TensorSpec& spec = note(take(name));
  const model_spec::Block block = block_of(spec, rank_, world_);
  Table table;
  if (const auto random = source_.random_block(spec, rank_, world_)) {
    table.buffer = backend_.random_table(*random);
  } else {
    table.buffer = backend_.load_table(read(spec), source_.dtype(), block.elements());
    uploaded();
  }
  const DType dtype = backend_.compute_dtype();
  table.view = spec.is_matrix ? table.buffer.view(dtype, {block.row_count(), block.cols})
                              : table.buffer.view(dtype, {block.row_count()});
  return table;
}

void WeightLoader::expect_all_taken() const {
  std::string left;
  for (const auto& [name, spec] : specs_) {
    if (!taken_.contains(name)) left += " " + name;
  }
  if (!left.empty()) check_failed("tensors that no layer took:" + left, std::source_location::current());
}

}  // namespace optserve::engine
