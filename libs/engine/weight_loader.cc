#include "engine/weight_loader.h"

#include "base/check.h"

namespace optserve::engine {

namespace {

// The bytes of the values of a rank's block on the host.
uint64_t block_bytes(const WeightSource& source, const model_spec::TensorSpec& spec, int rank, int world) {
  const model_spec::Block block = block_of(spec, rank, world);
  const quant::QuantFormat format = source.format(spec);
  return static_cast<uint64_t>(block.row_count() * quant::elements_per_row(format, block.cols)) *
         dtype_bytes(info(format).storage);
}

}  // namespace

WeightLoader::WeightLoader(const WeightSource& source, backend::Backend& backend, int rank, int world,
                           Progress progress)
    : source_(source), backend_(backend), rank_(rank), world_(world), progress_(std::move(progress)) {
  for (const model_spec::TensorSpec& spec : source.tensors()) {
    specs_.emplace(spec.name, &spec);
    total_ += block_bytes(source, spec, rank, world);
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
  if (!taken_.insert(spec.name).second) return spec;  // a tied table, which is taken twice
  done_ += block_bytes(source_, spec, rank_, world_);
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
  const uint64_t bytes = block_bytes(source_, spec, rank_, world_);
  std::byte* block = next_staging(bytes);
  source_.read_block(spec, rank_, world_, {block, bytes});
  return block;
}

quant::StoredMatrix WeightLoader::read_matrix(const model_spec::TensorSpec& spec) {
  const quant::QuantFormat format = source_.format(spec);
  const model_spec::Block block = block_of(spec, rank_, world_);
  quant::StoredMatrix stored{format, block.row_count(), block.cols};
  if (is_plain(format)) {
    stored.values = read(spec);
    return stored;
  }
  const uint64_t bytes = block_bytes(source_, spec, rank_, world_);
  const auto scales = static_cast<size_t>(block.row_count() * quant::scales_per_row(format, block.cols));
  const uint64_t scales_at = (bytes + alignof(float) - 1) / alignof(float) * alignof(float);
  std::byte* staged = next_staging(scales_at + scales * sizeof(float));
  auto* scale = reinterpret_cast<float*>(staged + scales_at);
  source_.read_block(spec, rank_, world_, {staged, bytes});
  source_.read_scales(spec, rank_, world_, {scale, scales});
  stored.values = staged;
  stored.scales = scale;
  return stored;
}

void WeightLoader::uploaded() { staging_[turn_].in_use_until = backend_.mark(); }

quant::Weight WeightLoader::matrix(std::string_view name) {
  const model_spec::TensorSpec& spec = note(take(name));
  if (const auto random = source_.random_block(spec, rank_, world_)) {
    return backend_.random_weight(*random, source_.format(spec));
  }
  quant::Weight weight = backend_.load_weight(read_matrix(spec));
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
